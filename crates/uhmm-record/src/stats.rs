//! The counters of a process, as a file that people or programs read.

use std::io::{self, Write};

use uhmm::CounterValues;

/// What a process is at as its counters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has not opened its memory to devices, and has nothing counted.
    NotOpened,
    /// It runs on. Where that is what is left of it, something ended it that nobody can announce, such as a
    /// signal.
    Running,
    /// It ends.
    Ended,
    /// It becomes another program.
    Replaced,
}

impl Stage {
    /// The stage in few words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotOpened => "not opened",
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Replaced => "replaced",
        }
    }
}

/// The counters of a process.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// The process.
    pub process: u32,
    /// What it is at.
    pub stage: Stage,
    /// What was counted, since its memory was opened.
    pub counters: CounterValues,
}

impl Stats {
    /// Writes them as one object of JSON.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{{\"process\":{},\"stage\":\"{}\"", self.process, self.stage.text())?;
        write!(out, ",\"counters\":{{")?;
        for (place, (name, value)) in self.counters.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(out, "{comma}\"{name}\":{value}")?;
        }
        writeln!(out, "}}}}")
    }

    /// Writes them as lines: what was counted, and how often. What never happened is left out.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "process {}, {}", self.process, self.stage.text())?;
        for (name, value) in self.counters.iter().filter(|&(_, value)| value > 0) {
            let name: String = name.replace('_', " ");
            writeln!(out, "{name:<26} {value:>12}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn both_say_what_was_counted() {
        let counters = CounterValues::default();
        let stats = Stats { process: 12, stage: Stage::Ended, counters };
        let json: serde_json::Value =
            serde_json::from_str(&written(|out| stats.write_json(out))).unwrap();
        assert_eq!(json["process"], 12);
        assert_eq!(json["stage"], "ended");
        assert_eq!(json["counters"]["cpu_faults"], 0);
        assert_eq!(
            json["counters"].as_object().unwrap().len(),
            CounterValues::default().iter().count()
        );
        assert_eq!(written(|out| stats.write_text(out)), "process 12, ended\n");
    }
}
