//! What is drawn, from top to bottom: the program, its devices, its addresses, and what is counted.

use indicatif::{BinaryBytes, HumanCount, HumanFloatCount};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Table};

use super::sample::{Change, most_of};
use uhmm_record::latencies as latency_text;

/// Colours of devices, again and again.
const COLOURS: [Color; 6] =
    [Color::Blue, Color::Yellow, Color::Green, Color::Magenta, Color::Cyan, Color::Red];

const fn colour(device: usize) -> Style {
    Style::new().fg(COLOURS[device % COLOURS.len()])
}

/// How full a cell of the addresses is.
const SHADES: [&str; 5] = ["·", "░", "▒", "▓", "█"];

/// Lines of the addresses.
const ADDRESS_LINES: u16 = 3;

/// Draws what there is; `hint` ends the first line.
pub(super) fn draw(frame: &mut Frame<'_>, process: u32, change: &Change, hint: &str) {
    let few = |lines: usize| u16::try_from(lines.min(8)).unwrap_or(8);
    let latencies = if change.latencies.is_empty() { 0 } else { few(change.latencies.len()) + 3 };
    let [head, devices, addresses, timed, counted] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(few(change.devices.len().max(1)) + 2),
        Constraint::Length(ADDRESS_LINES + 2),
        Constraint::Length(latencies),
        Constraint::Min(3),
    ])
    .areas(frame.area());
    draw_head(frame, head, process, change, hint);
    draw_devices(frame, devices, change);
    draw_addresses(frame, addresses, change);
    if latencies > 0 {
        draw_latencies(frame, timed, change);
    }
    draw_counters(frame, counted, change);
}

fn bytes(change: &Change, pages: usize) -> BinaryBytes {
    BinaryBytes(change.page.bytes_in(pages) as u64)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, process: u32, change: &Change, hint: &str) {
    let state = if change.is_alive { Style::new() } else { Style::new().fg(Color::Red) };
    let line = Line::from(vec![
        Span::styled("uhmm top", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  process {process} ")),
        Span::styled(change.state, state),
        Span::raw(format!("  adopted {}{hint}", bytes(change, change.adopted))),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_devices(frame: &mut Frame<'_>, area: Rect, change: &Change) {
    let block = Block::bordered().title("devices");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    if change.devices.is_empty() {
        frame.render_widget(Paragraph::new("none"), inner);
    }
    for (line, device) in inner.rows().zip(&change.devices) {
        let [name, gauge] =
            Layout::horizontal([Constraint::Length(12), Constraint::Min(10)]).areas(line);
        let style = colour(device.number);
        frame.render_widget(Line::styled(format!("device {}", device.number), style), name);
        #[expect(clippy::cast_precision_loss, reason = "it is a share")]
        let share = device.held as f64 / device.frames.max(1) as f64;
        let held = bytes(change, device.held);
        let label = if device.lost {
            "lost".to_owned()
        } else {
            format!("{held} of {}", bytes(change, device.frames))
        };
        let gauge_widget = Gauge::default().ratio(share.clamp(0.0, 1.0)).label(label);
        frame.render_widget(gauge_widget.gauge_style(style), gauge);
    }
}

/// Each cell stands for some blocks: the colour of the device that holds the most of them, and how much
/// that is.
fn draw_addresses(frame: &mut Frame<'_>, area: Rect, change: &Change) {
    let block = Block::bordered();
    let inner = block.inner(area);
    let cells = usize::from(inner.width) * usize::from(inner.height);
    let blocks_a_cell = change.blocks.len().div_ceil(cells.max(1)).max(1);
    let size = bytes(change, blocks_a_cell * uhmm::units::BLOCK_PAGES);
    let mut title = format!("addresses, {size} each, the darker the more of it is on devices");
    if change.blocks_left_out > 0 {
        title.push_str(", not all");
    }
    frame.render_widget(block.title(title), area);
    let shown: Vec<_> = change
        .blocks
        .chunks(blocks_a_cell)
        .map(|blocks| match most_of(blocks) {
            None => Span::styled(SHADES[0], Style::new().add_modifier(Modifier::DIM)),
            Some((device, share)) => {
                let shade = match share {
                    share if share > 0.75 => 4,
                    share if share > 0.5 => 3,
                    share if share > 0.25 => 2,
                    _ => 1,
                };
                Span::styled(SHADES[shade], colour(device))
            }
        })
        .collect();
    let lines: Vec<_> = shown
        .chunks(usize::from(inner.width).max(1))
        .map(|spans| Line::from(spans.to_vec()))
        .collect();
    frame.render_widget(Paragraph::new(lines), inner);
}

fn draw_latencies(frame: &mut Frame<'_>, area: Rect, change: &Change) {
    let rows = change.latencies.iter().map(|&(latency, count, half, rare)| {
        Row::new([
            Cell::from(latency_text::name(latency)),
            right(HumanCount(count).to_string()),
            right(latency_text::text(half)),
            right(latency_text::text(rare)),
        ])
    });
    let widths = [
        Constraint::Min(30),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(12),
    ];
    let table = Table::new(rows, widths)
        .header(header(["latency", "count", "half below", "99.9 % below"]))
        .block(Block::bordered().title("latencies, as a recording is on"));
    frame.render_widget(table, area);
}

fn draw_counters(frame: &mut Frame<'_>, area: Rect, change: &Change) {
    let mut counters: Vec<_> = change.counters.iter().collect();
    // What happens most now comes first, then what happened most.
    let rate = |rate: Option<f64>| rate.unwrap_or(0.0);
    counters.sort_by(|one, other| rate(other.2).total_cmp(&rate(one.2)).then(other.1.cmp(&one.1)));
    let rows = counters.into_iter().map(|&(name, value, rate)| {
        let style =
            if rate == Some(0.0) { Style::new().add_modifier(Modifier::DIM) } else { Style::new() };
        Row::new([
            Cell::from(name.replace('_', " ")),
            right(rate.map_or_else(String::new, |rate| HumanFloatCount(rate.round()).to_string())),
            right(HumanCount(value).to_string()),
        ])
        .style(style)
    });
    let widths = [Constraint::Min(30), Constraint::Length(14), Constraint::Length(18)];
    let table = Table::new(rows, widths)
        .header(header(["counter", "a second", "in all"]))
        .block(Block::bordered().title("counters"));
    frame.render_widget(table, area);
}

fn header<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    let mut place = 0;
    let cells = names.map(|name| {
        place += 1;
        if place == 1 { Cell::from(name) } else { right(name.to_owned()) }
    });
    Row::new(cells).style(Style::new().add_modifier(Modifier::BOLD))
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}
