//! The demonstration with devices that are CPU threads in disguise.

use clap::Parser;
use serde_json::Value;

use super::accelerator::Counters;
use super::*;
use crate::interrupt::Interrupted;
use crate::pagerank::{Step, cpu_step};
use uhmm_record::Recorded;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// What a device does in its third step.
#[derive(Clone, Copy)]
enum Third {
    Works,
    FlipsABit,
    Fails,
    IsInterrupted,
}

struct CpuAccelerator {
    memory_bytes: u64,
    third: Third,
    steps: u64,
}

impl Accelerator for CpuAccelerator {
    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    fn step(&mut self, step: Step<'_>, stop: &Stop) -> Result<(), DeviceError> {
        self.steps += 1;
        let third = self.steps == 3;
        let Step { in_neighbours, contributions, base, ranks } = step;
        cpu_step(Step { in_neighbours, contributions, base, ranks: &mut *ranks }, stop, 1)?;
        match self.third {
            Third::FlipsABit if third => ranks[1] = f64::from_bits(ranks[1].to_bits() ^ 1),
            Third::Fails if third => {
                let source = "it caught fire".into();
                return Err(DeviceError::Failed { doing: "the device failed", source });
            }
            Third::IsInterrupted if third => stop.set(),
            _ => {}
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        Counters {
            cpu_faults: 10 * self.steps,
            device_faults: 20 * self.steps,
            migrated_to_device_bytes: 4096 * self.steps,
            migrated_to_system_bytes: 8192 * self.steps,
        }
    }

    fn all_counters(&self) -> Vec<(&'static str, u64)> {
        vec![("cpu_faults", 10 * self.steps)]
    }

    fn record(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn recorded(&mut self) -> Option<Recorded> {
        None
    }

    fn close(self: Box<Self>) -> Result<(), DeviceError> {
        Ok(())
    }
}

fn demo(line: &str, third: Third) -> (Result<(), Failure>, String) {
    let words = ["demo"].into_iter().chain(line.split_whitespace());
    let args = Line::try_parse_from(words).unwrap().args;
    let mut out = Vec::new();
    let demo =
        Demo { args: &args, stop: &Stop::new(), progress: Progress::silent(), colour: false };
    let outcome = demo.run(
        |memory_bytes| Ok(Box::new(CpuAccelerator { memory_bytes, third, steps: 0 })),
        &mut out,
    );
    (outcome, String::from_utf8(out).unwrap())
}

#[test]
fn a_device_that_works_is_verified() {
    let (outcome, out) = demo("--scale 6 --iterations 4", Third::Works);
    outcome.unwrap();
    for part in ["Kronecker, scale 6, seed 1", "device faults", "80", "16.00 KiB", "Verified"] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
}

#[test]
fn json_is_one_object_with_its_keys() {
    let (outcome, out) = demo("--scale 6 --iterations 4 --json --device-memory 10%", Third::Works);
    outcome.unwrap();
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["verified"], true);
    let graph_bytes = object["graph_bytes"].as_u64().unwrap();
    assert_eq!(object["device_bytes"].as_u64().unwrap(), graph_bytes / 10);
    assert_eq!(object["cpu_faults"], 40);
    assert_eq!(object["device_faults"], 80);
    assert_eq!(object["migrated_to_device_bytes"], 4 * 4096);
    assert_eq!(object["migrated_to_system_bytes"], 4 * 8192);
    assert_eq!(object["iterations"], 4);
    assert_eq!(object["vertices"], 64);
    assert!(object["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn one_wrong_bit_is_not_verified() {
    let (outcome, out) = demo("--scale 6 --iterations 3 --json", Third::FlipsABit);
    let failure = outcome.unwrap_err();
    let told = NotVerified { differing: 1, vertices: 64, first: 1 };
    assert_eq!(failure.error(), Some(&told));
    assert_eq!(failure.exit_status(), 1);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["verified"], false);
    let (_, table) = demo("--scale 6 --iterations 3", Third::FlipsABit);
    assert!(table.contains("Not verified"), "{table}");
}

#[test]
fn a_device_that_fails_is_named() {
    let (outcome, out) = demo("--scale 6 --json", Third::Fails);
    let failure = outcome.unwrap_err();
    assert_eq!(failure.to_string(), "the device failed: it caught fire");
    assert_eq!(failure.exit_status(), 1);
    assert_eq!(out, "");
}

#[test]
fn an_interrupt_ends_it_with_130() {
    let (outcome, out) = demo("--scale 6", Third::IsInterrupted);
    let failure = outcome.unwrap_err();
    assert_eq!(failure.error(), Some(&Interrupted));
    assert_eq!(failure.exit_status(), 130);
    assert_eq!(out, "");
}

#[test]
fn colour_is_only_where_asked_for() {
    let report = Report {
        verified: true,
        graph: "g".into(),
        vertices: 1,
        edges: 1,
        graph_bytes: 1 << 21,
        device_bytes: 1,
        iterations: 1,
        last_change: 0.0,
        device_faults: 0,
        cpu_faults: 0,
        migrated_to_device_bytes: 0,
        migrated_to_system_bytes: 0,
        seconds: 0.0,
        cpu_only_seconds: 0.0,
    };
    let text = |colour| {
        let mut out = Vec::new();
        report.write_table(&mut out, colour).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(text(true).contains("\x1b[32m"));
    assert!(!text(false).contains('\x1b'));
    assert!(text(false).contains("2.00 MiB"));
}
