use proptest::prelude::*;

use super::*;
use crate::units::PageNumber;

fn parse_in_pieces(text: &[u8], piece: usize) -> Vec<Area> {
    let mut areas = Vec::new();
    let mut visit = |area: &Area| {
        areas.push(*area);
        ControlFlow::Continue(())
    };
    let mut parser = Parser::new(PageSize::new(4096).unwrap());
    for piece in text.chunks(piece) {
        assert!(parser.feed(piece, &mut visit).is_continue());
    }
    assert!(parser.finish(&mut visit).is_continue());
    areas
}

fn one(header: &str, flags: &str) -> Area {
    let text = format!("{header}\nSize:                  8 kB\nVmFlags: {flags} \n");
    let areas = parse_in_pieces(text.as_bytes(), 4096);
    assert_eq!(areas.len(), 1, "{text}");
    areas[0]
}

const ADDRESSES: &str = "7f0000000000-7f0000002000";

fn backing(permissions: &str, name: &str) -> Backing {
    one(&format!("{ADDRESSES} {permissions} 00000000 00:00 0 {name}"), "rd wr").backing
}

#[test]
fn an_area() {
    let area = one(&format!("{ADDRESSES} rw-p 00000000 00:00 0 "), "rd wr mr mw me ac sd");
    assert_eq!(area.pages, PageRange::of(PageNumber(0x7_f000_0000), 2));
    assert_eq!(area.protection, Protection { read: true, write: true, execute: false });
    assert_eq!(area.backing, Backing::PrivateAnonymous);
    assert!(!area.stack && !area.locked && !area.registered && !area.object_data);
}

#[test]
fn huge_pages_are_told_by_a_line_of_their_own() {
    let header = format!("{ADDRESSES} rw-p 00000000 00:00 0 ");
    for (line, huge) in
        [("", false), ("THPeligible:           0\n", false), ("THPeligible:           1\n", true)]
    {
        let text = format!("{header}\nSize:                  8 kB\n{line}VmFlags: rd wr \n");
        assert_eq!(parse_in_pieces(text.as_bytes(), 7)[0].huge, huge, "{line}");
    }
}

#[test]
fn names_tell_the_backing() {
    use Backing::{PrivateAnonymous, PrivateFile, SharedAnonymous, SharedFile, Special};
    for (permissions, name, expected) in [
        ("rw-p", "", PrivateAnonymous),
        ("rw-p", "                         [heap]", PrivateAnonymous),
        ("rw-p", "[anon:my heap]", PrivateAnonymous),
        ("rw-p", "/dev/zero", PrivateAnonymous),
        ("rw-s", "/dev/zero", Special),
        ("rw-s", "/dev/zero (deleted)", SharedAnonymous),
        ("rw-s", "[anon_shmem:x]", SharedAnonymous),
        ("rw-s", "/SYSV00000000 (deleted)", SharedAnonymous),
        ("rw-s", "/memfd:x (deleted)", SharedFile),
        ("rw-p", "/memfd:x (deleted)", PrivateFile),
        ("rw-s", "/dev/shm/x", SharedFile),
        ("rw-s", "/dev/dri/card0", Special),
        ("rw-s", "anon_inode:[io_uring]", Special),
        ("rw-s", "/[aio] (deleted)", Special),
        ("rw-s", "/dmabuf:", Special),
        ("rw-s", "/secretmem (deleted)", Special),
        ("rw-s", "socket:[4711]", Special),
        ("rw-s", "/sys/devices/pci0000:00/0000:00:02.0/resource0", Special),
        ("r-xp", "[vdso]", Special),
        ("--xp", "[vsyscall]", Special),
        ("r--p", "/usr/lib/a b\\012c.so", PrivateFile),
    ] {
        assert_eq!(backing(permissions, name), expected, "{permissions} {name}");
    }
}

#[test]
fn flags_tell_the_rest() {
    let anonymous = format!("{ADDRESSES} rw-p 00000000 00:00 0 ");
    assert!(one(&anonymous, "rd wr nh").stack);
    assert!(one(&anonymous, "rd wr gd").stack);
    assert!(one(&anonymous, "rd wr lo").locked);
    assert!(one(&anonymous, "rd wr lo").inherited && !one(&anonymous, "rd wr dc").inherited);
    assert!(one(&anonymous, "rd wr um").registered);
    assert!(one(&anonymous, "rd wr uw").registered);
    assert!(one(&anonymous, "rd wr ui").registered);
    assert_eq!(one(&anonymous, "rd wr ht").backing, Backing::PrivateHugetlb);
    let file = format!("{ADDRESSES} rw-p 00000000 08:01 7 /x");
    assert!(!one(&file, "rd wr nh").stack);
    for special in ["io", "pf", "mm"] {
        assert_eq!(one(&file, special).backing, Backing::Special);
    }
    assert!(one(&format!("{ADDRESSES} rw-p 00000000 00:00 0 [stack]"), "").stack);
}

#[test]
fn zero_initialised_data_of_objects() {
    let text = b"1000-2000 rw-p 00000000 08:01 7 /lib.so\nVmFlags: rd\n\
        2000-3000 rw-p 00000000 00:00 0 \nVmFlags: rd\n\
        3000-4000 r--p 00000000 00:00 0 \nVmFlags: rd\n\
        5000-6000 rw-p 00000000 00:00 0 \nVmFlags: rd\n\
        6000-7000 r--p 00000000 08:01 7 /lib.so\nVmFlags: rd\n\
        7000-8000 rw-p 00000000 00:00 0 \nVmFlags: rd\n";
    let data: Vec<bool> = parse_in_pieces(text, 4096).iter().map(|area| area.object_data).collect();
    assert_eq!(data, [false, true, true, false, false, false]);
}

#[test]
fn long_lines_and_small_pieces() {
    let name = "/".to_owned() + &"x".repeat(5000);
    let text = format!(
        "{ADDRESSES} rw-s 00000000 08:01 7 {name}\nVmFlags: rd sh lo \n\
         7f0000002000-7f0000003000 r--p 00000000 00:00 0 "
    );
    let whole = parse_in_pieces(text.as_bytes(), usize::MAX);
    assert_eq!(whole.len(), 2);
    assert!(whole[0].locked && whole[0].backing == Backing::SharedFile);
    for piece in [1, 2, 7, 64, 191, 192, 193, 1000] {
        assert_eq!(parse_in_pieces(text.as_bytes(), piece), whole);
    }
}

#[test]
fn visiting_ends_when_told() {
    let text = b"1000-2000 rw-p 0 0:0 0 \nVmFlags: rd\n2000-3000 rw-p 0 0:0 0 \nVmFlags: rd\n";
    let mut seen = 0;
    let mut parser = Parser::new(PageSize::new(4096).unwrap());
    let flow = parser.feed(text, &mut |_| {
        seen += 1;
        ControlFlow::Break(())
    });
    assert!(flow.is_break() && seen == 1);
}

proptest! {
    #[test]
    fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..600), piece in 1_usize..600) {
        parse_in_pieces(&text, piece);
    }

    #[test]
    fn nothing_that_looks_like_areas_panics(
        text in "([0-9a-f]{1,20}-[0-9a-f]{1,20} [rwxsp-]{0,5} [0-9a-f:]{0,9} ?[0-9 ]{0,9}[a-z/\\[]{0,300}\n?(VmFlags:( [a-z]{2}){0,90})?\n){0,5}",
        piece in 1_usize..600,
    ) {
        parse_in_pieces(text.as_bytes(), piece);
    }
}
