//! The rows of a run, as a table and as JSON.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::rounds::{Pair, Spread};

/// One thing measured.
#[derive(Debug)]
pub(super) struct Row {
    /// The measure.
    name: &'static str,
    /// Which part of it.
    case: &'static str,
    /// What else ran.
    setting: &'static str,
    /// The unit of the figures.
    unit: &'static str,
    /// What the ratio should be at most, if that was said.
    at_most: Option<f64>,
    /// What came out.
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Measured { ratio: f64, ours: Spread, floor: Spread },
    Skipped { why: String },
}

/// A row as JSON. The first six keys are what every reader may count on, in this order.
#[derive(Serialize)]
struct JsonRow<'a> {
    name: &'a str,
    ours: Option<f64>,
    floor: Option<f64>,
    unit: &'a str,
    ratio: Option<f64>,
    /// Which figures are better.
    better: &'a str,
    case: &'a str,
    setting: &'a str,
    at_most: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ours_spread: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_spread: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'a str>,
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
        let outcome = Outcome::Skipped { why: String::new() };
        Self { name, case, setting, unit, at_most, outcome }
    }

    /// The row with what was measured.
    pub(super) fn measured(self, Pair { ours, floor }: Pair) -> Self {
        let ratio = ours.median / floor.median;
        Self { outcome: Outcome::Measured { ratio, ours, floor }, ..self }
    }

    /// The row with why nothing was measured.
    pub(super) fn skipped(self, why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped { why: why.into() }, ..self }
    }

    fn json(&self) -> JsonRow<'_> {
        let Self { name, case, setting, unit, at_most, .. } = *self;
        let (figures, skipped) = match &self.outcome {
            Outcome::Measured { ratio, ours, floor } => (Some((*ratio, *ours, *floor)), None),
            Outcome::Skipped { why } => (None, Some(&**why)),
        };
        JsonRow {
            name,
            ours: figures.map(|(_, ours, _)| ours.median),
            floor: figures.map(|(.., floor)| floor.median),
            unit,
            ratio: figures.map(|(ratio, ..)| ratio),
            better: "lower",
            case,
            setting,
            at_most,
            ours_spread: figures.map(|(_, ours, _)| ours),
            floor_spread: figures.map(|(.., floor)| floor),
            skipped,
        }
    }
}

/// All rows of a run.
#[derive(Debug, Default)]
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
        let rows: Vec<_> = self.0.iter().map(Row::json).collect();
        serde_json::to_writer(&mut *out, &rows)?;
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
                Outcome::Measured { ratio, ours, floor } => {
                    [figure(*ours), figure(*floor), format!("{ratio:.2}")]
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
            if let Outcome::Skipped { why } = &row.outcome {
                writeln!(out, "skipped: {}, {}, {}: {why}", row.name, row.case, row.setting)?;
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
