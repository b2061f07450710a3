//! Why a page stays where it was, as two words of a message.

use crate::{
    mm::{Backing, Errno},
    report::StayCause,
};

const BACKINGS: [Backing; 7] = [
    Backing::PrivateAnonymous,
    Backing::SharedAnonymous,
    Backing::PrivateFile,
    Backing::SharedFile,
    Backing::PrivateHugetlb,
    Backing::Special,
    Backing::SharedHugetlb,
];

/// A cause as it goes into a message: its number, which is not zero, and what goes with it.
pub fn cause_words(cause: StayCause) -> [u64; 2] {
    let code = |code: i32| u64::from(code.cast_unsigned());
    match cause {
        StayCause::NotAdopted => [1, 0],
        StayCause::NoArea => [2, 0],
        StayCause::Stack => [3, 0],
        StayCause::Kept => [4, 0],
        StayCause::Backing(backing) => {
            [5, BACKINGS.iter().take_while(|&&other| other != backing).count() as u64]
        }
        StayCause::Protection => [6, 0],
        StayCause::Locked => [7, 0],
        StayCause::ForeignUserfaultfd => [8, 0],
        StayCause::CannotTrap => [9, 0],
        StayCause::NoRoomForAreas => [10, 0],
        StayCause::Busy => [11, 0],
        StayCause::NoFrames => [12, 0],
        StayCause::NoMemory => [13, 0],
        StayCause::BeyondEnd => [14, 0],
        StayCause::Discarded => [15, 0],
        StayCause::Poisoned => [16, 0],
        StayCause::DeviceLost => [17, 0],
        StayCause::DeviceRefuses(number) => [18, code(number)],
        StayCause::DeviceFails(number) => [19, code(number)],
        StayCause::Closed => [20, 0],
        StayCause::System(Errno(number)) => [21, code(number)],
    }
}

/// The cause that was written as these words; none where no cause is.
pub fn cause_of([number, with]: [u64; 2]) -> Option<StayCause> {
    let code = || u32::try_from(with).ok().map(u32::cast_signed);
    let cause = match number {
        1 => StayCause::NotAdopted,
        2 => StayCause::NoArea,
        3 => StayCause::Stack,
        4 => StayCause::Kept,
        5 => StayCause::Backing(*BACKINGS.get(usize::try_from(with).ok()?)?),
        6 => StayCause::Protection,
        7 => StayCause::Locked,
        8 => StayCause::ForeignUserfaultfd,
        9 => StayCause::CannotTrap,
        10 => StayCause::NoRoomForAreas,
        11 => StayCause::Busy,
        12 => StayCause::NoFrames,
        13 => StayCause::NoMemory,
        14 => StayCause::BeyondEnd,
        15 => StayCause::Discarded,
        16 => StayCause::Poisoned,
        17 => StayCause::DeviceLost,
        18 => StayCause::DeviceRefuses(code()?),
        19 => StayCause::DeviceFails(code()?),
        20 => StayCause::Closed,
        21 => StayCause::System(Errno(code()?)),
        _ => return None,
    };
    // What goes with a cause that nothing goes with is zero.
    (cause_words(cause) == [number, with]).then_some(cause)
}
