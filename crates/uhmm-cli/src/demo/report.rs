//! The result of a demonstration, as a table and as JSON.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use super::accelerator::Counters;

/// All that `uhmm demo` has to say. The names of the fields are the keys of the JSON object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// Every rank equals the CPU-only computation bit for bit.
    pub(super) verified: bool,
    /// Where the graph came from.
    pub(super) graph: String,
    /// Vertices of the graph.
    pub(super) vertices: u64,
    /// Edges of the graph.
    pub(super) edges: u64,
    /// Heap bytes that the graph takes.
    pub(super) graph_bytes: u64,
    /// Bytes of memory that the device has.
    pub(super) device_bytes: u64,
    /// Iterations of PageRank.
    pub(super) iterations: u32,
    /// The sum of the absolute changes that the last iteration made.
    pub(super) last_change: f64,
    /// Accesses of the device that found no translation.
    pub(super) device_faults: u64,
    /// Accesses of CPU threads that found their page away.
    pub(super) cpu_faults: u64,
    /// Bytes of pages that moved to the device.
    pub(super) migrated_to_device_bytes: u64,
    /// Bytes of pages that came back.
    pub(super) migrated_to_system_bytes: u64,
    /// Seconds that the iterations took with the device.
    pub(super) seconds: f64,
    /// Seconds that the iterations took by CPU threads alone.
    pub(super) cpu_only_seconds: f64,
}

impl Report {
    /// Takes over what the device counted.
    pub(super) fn count(&mut self, counters: Counters) {
        self.device_faults = counters.device_faults;
        self.cpu_faults = counters.cpu_faults;
        self.migrated_to_device_bytes = counters.migrated_to_device_bytes;
        self.migrated_to_system_bytes = counters.migrated_to_system_bytes;
    }

    /// Writes one JSON object on one line.
    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)?;
        out.flush()
    }

    /// Writes the table, and a verdict below it.
    pub(super) fn write_table(&self, out: &mut dyn Write, colour: bool) -> io::Result<()> {
        writeln!(out, "{}", self.table())?;
        let code = if self.verified { "32" } else { "31" };
        let verdict = self.verdict();
        if colour {
            writeln!(out, "\x1b[{code}m{verdict}\x1b[0m")?;
        } else {
            writeln!(out, "{verdict}")?;
        }
        out.flush()
    }

    /// Whether the result is right, as a sentence.
    pub(super) const fn verdict(&self) -> &'static str {
        if self.verified {
            "Verified: every rank equals the CPU-only computation bit for bit."
        } else {
            "Not verified: ranks differ from the CPU-only computation."
        }
    }

    /// Names and values, as a person reads them.
    pub(super) fn rows(&self) -> [(&'static str, String); 14] {
        let size = |bytes| BinaryBytes(bytes).to_string();
        let count = |number| HumanCount(number).to_string();
        [
            ("graph", self.graph.clone()),
            ("vertices", count(self.vertices)),
            ("edges", count(self.edges)),
            ("graph memory", size(self.graph_bytes)),
            ("device memory", size(self.device_bytes)),
            ("iterations", count(self.iterations.into())),
            ("change by the last one", format!("{:.3e}", self.last_change)),
            ("device faults", count(self.device_faults)),
            ("CPU faults", count(self.cpu_faults)),
            ("migrated to the device", size(self.migrated_to_device_bytes)),
            ("migrated to the system", size(self.migrated_to_system_bytes)),
            ("seconds with the device", format!("{:.3}", self.seconds)),
            ("seconds by the CPU alone", format!("{:.3}", self.cpu_only_seconds)),
            ("verified", if self.verified { "yes" } else { "no" }.to_owned()),
        ]
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        for (name, value) in self.rows() {
            table.add_row([name, &value]);
        }
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}
