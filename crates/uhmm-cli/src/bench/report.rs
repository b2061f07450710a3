//! The rows of a run, as a table and as JSON.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::rounds::{Pair, Spread};

/// One thing measured. The names of the fields are the keys of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// The measure.
    name: &'static str,
    /// Which part of it.
    case: &'static str,
    /// What else ran.
    setting: &'static str,
    /// The unit of the figures.
    unit: &'static str,
    /// Which figures are better.
    better: &'static str,
    /// What the ratio should be at most, if that was said.
    at_most: Option<f64>,
    /// What came out.
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Measured { ours: f64, floor: f64, ratio: f64, ours_spread: Spread, floor_spread: Spread },
    Skipped { skipped: String },
}

impl Row {
    /// A row without a result yet.
    pub(super) const fn new(
        name: &'static str,
        case: &'static str,
        setting: &'static str,
        unit: &'static str,
        at_most: Option<f64>,
    ) -> Self {
        let outcome = Outcome::Skipped { skipped: String::new() };
        Self { name, case, setting, unit, better: "lower", at_most, outcome }
    }

    /// The row with what was measured.
    pub(super) fn measured(self, pair: Pair) -> Self {
        let Pair { ours, floor } = pair;
        let outcome = Outcome::Measured {
            ours: ours.median,
            floor: floor.median,
            ratio: ours.median / floor.median,
            ours_spread: ours,
            floor_spread: floor,
        };
        Self { outcome, ..self }
    }

    /// The row with why nothing was measured.
    pub(super) fn skipped(self, why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped { skipped: why.into() }, ..self }
    }
}

/// All rows of a run.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Rows(Vec<Row>);

impl Rows {
    pub(super) fn add(&mut self, row: Row) {
        self.0.push(row);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The rows from `first` on, in few words.
    pub(super) fn since(&self, first: usize) -> String {
        let words: Vec<_> = self.0[first..]
            .iter()
            .map(|row| match &row.outcome {
                Outcome::Measured { ratio, .. } => format!("{} {ratio:.2}", row.case),
                Outcome::Skipped { .. } => format!("{} skipped", row.case),
            })
            .collect();
        words.join("; ")
    }

    /// Writes one JSON array on one line.
    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes a table, and below it what was skipped and why.
    pub(super) fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "measure", "case", "setting", "ours", "floor", "unit", "ratio", "at most",
        ]);
        for row in &self.0 {
            let [ours, floor, ratio] = match &row.outcome {
                Outcome::Measured { ratio, ours_spread, floor_spread, .. } => {
                    [figure(*ours_spread), figure(*floor_spread), format!("{ratio:.2}")]
                }
                Outcome::Skipped { .. } => ["skipped", "", ""].map(str::to_owned),
            };
            let at_most = row.at_most.map_or_else(String::new, |most| format!("{most:.2}"));
            table.add_row([
                row.name,
                row.case,
                row.setting,
                &ours,
                &floor,
                row.unit,
                &ratio,
                &at_most,
            ]);
        }
        for number in [3, 4, 6, 7] {
            if let Some(column) = table.column_mut(number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(out, "{table}")?;
        for row in &self.0 {
            if let Outcome::Skipped { skipped } = &row.outcome {
                writeln!(out, "skipped: {}, {}, {}: {skipped}", row.name, row.case, row.setting)?;
            }
        }
        Ok(())
    }
}

/// A median with its quartiles.
fn figure(spread: Spread) -> String {
    let Spread { lower_quartile, median, upper_quartile } = spread;
    let digits = usize::from(median < 100.0);
    if lower_quartile.total_cmp(&upper_quartile).is_eq() {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({lower_quartile:.digits$}-{upper_quartile:.digits$})")
}
