//! The live screen: puts a [`Model`] on a terminal of any size. No decisions, no state.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::model::{Health, Model, clock, hashes, millis, or_dash};
use super::program::Program;

/// Rows of a panel, its frame included.
const PANEL_ROWS: u16 = 7;

/// Columns of a label.
const LABEL_COLUMNS: usize = 15;

/// Draws everything. `folder` is shown in the title.
pub fn draw(frame: &mut Frame<'_>, model: &Model, folder: &str) {
    let [title, upper, lower, services, events] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(PANEL_ROWS),
        Constraint::Length(PANEL_ROWS),
        Constraint::Length(3),
        Constraint::Min(3),
    ])
    .areas(frame.area());
    let halves = Layout::horizontal([Constraint::Ratio(1, 2); 2]);
    let [chain, template] = halves.areas(upper);
    let [miners, delivery] = halves.areas(lower);
    draw_title(frame, title, model, folder);
    panel(frame, chain, "Chain", chain_rows(model));
    panel(frame, template, "Template and switch", template_rows(model));
    panel(frame, miners, "Miners", miner_rows(model));
    panel(frame, delivery, "Delivery to the pool", delivery_rows(model));
    draw_services(frame, services, model);
    draw_events(frame, events, model);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, model: &Model, folder: &str) {
    let line = Line::from(vec![
        Span::from(" ReserveGrid OS ").bold().reversed(),
        Span::from(format!(" demo · inline · up {} · ", clock(model.uptime))),
        Span::from("q").bold(),
        Span::from(format!(" stops · {folder}")),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

fn row(label: &str, value: String) -> Line<'static> {
    let label = format!("{label:<LABEL_COLUMNS$}");
    Line::from(vec![Span::from(label).dim(), Span::from(value)])
}

fn panel(frame: &mut Frame<'_>, area: Rect, title: &'static str, rows: Vec<Line<'static>>) {
    let block = Block::bordered().title(title).border_style(Style::new().fg(Color::DarkGray));
    frame.render_widget(Paragraph::new(rows).block(block), area);
}

fn chain_rows(model: &Model) -> Vec<Line<'static>> {
    let numbers = &model.numbers;
    vec![
        row("tip height", or_dash(numbers.height)),
        row("tip", or_dash(numbers.tip.as_deref())),
        row("blocks", numbers.blocks.to_string()),
        row("  by miners", numbers.blocks_by_miners.to_string()),
        row("  by the chain", model.blocks_by_chain().to_string()),
    ]
}

fn template_rows(model: &Model) -> Vec<Line<'static>> {
    let numbers = &model.numbers;
    let verdicts: Vec<String> =
        numbers.verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
    let verdicts = if verdicts.is_empty() { "-".to_owned() } else { verdicts.join(" · ") };
    let switch = match numbers.switch {
        Some(switch) => format!(
            "p50 {} · p95 {} · p99 {}",
            millis(switch.p50),
            millis(switch.p95),
            millis(switch.p99)
        ),
        None => "-".to_owned(),
    };
    vec![
        row("transactions", or_dash(numbers.template_transactions)),
        row("weight", or_dash(numbers.template_weight)),
        row("fees, sat", or_dash(numbers.template_fees)),
        row("verdicts", verdicts),
        row("switch", switch),
    ]
}

fn miner_rows(model: &Model) -> Vec<Line<'static>> {
    let numbers = &model.numbers;
    let rejected: Vec<String> =
        model.rejected().map(|(reason, count)| format!("{reason} {count}")).collect();
    let mut last = row("rejected", "0".to_owned());
    if !rejected.is_empty() {
        last = row("rejected", rejected.join(" · ")).fg(Color::Yellow);
    }
    vec![
        row("connections", or_dash(numbers.connections)),
        row("channels", or_dash(numbers.channels)),
        row("hashrate", numbers.hashrate.map_or_else(|| "-".to_owned(), hashes)),
        row("accepted", model.accepted().to_string()),
        last,
    ]
}

fn delivery_rows(model: &Model) -> Vec<Line<'static>> {
    let backend = &model.numbers.backend;
    vec![
        row("waiting", or_dash(model.numbers.queue_depth)),
        row("credited", format!("{} shares in {} batches", backend.shares, backend.batches)),
        row("duplicates", backend.duplicates.to_string()),
        row("blocks", backend.blocks.to_string()),
        row("work", backend.work.to_string()),
    ]
}

fn draw_services(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let mut spans = Vec::new();
    for program in Program::ALL {
        let color = match model.health[program.index()] {
            Health::Ready => Color::Green,
            Health::Unknown => Color::DarkGray,
            Health::NotReady(_) => Color::Yellow,
            Health::Silent => Color::Red,
        };
        spans.push(Span::from("● ").fg(color));
        spans.push(Span::from(format!("{}  ", program.name())));
    }
    panel(frame, area, "Services", vec![Line::from(spans)]);
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let rows = usize::from(area.height.saturating_sub(2));
    let lines = model.events().rev().take(rows).map(|event| Line::from(event.to_owned())).collect();
    panel(frame, area, "Events, the newest first", lines);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::model::Sample;
    use crate::demo::reading::Reading;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn screen(columns: u16, rows: u16, model: &Model) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| draw(frame, model, "/folder")).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..columns).map(|x| buffer[(x, y)].symbol().to_owned()).collect();
        (0..rows).map(row).collect()
    }

    #[test]
    fn every_number_has_its_place() {
        let mut model = Model::default();
        let text = "reservegrid_connections{state=\"open\"} 24\n\
                    reservegrid_shares_total{reason_code=\"ok\"} 1234\n\
                    reservegrid_shares_total{reason_code=\"stale_share\"} 5\n\
                    reservegrid_template_transactions{slot=\"current\"} 3000\n\
                    reservegrid_verdicts_total{verdict=\"accept\"} 7\n";
        let mut health: [Health; 5] = Default::default();
        health[Program::Backend.index()] = Health::Silent;
        model.on_sample(&Sample {
            uptime: Duration::from_secs(61),
            health,
            gateway: Some(Reading::parse(text)),
            ..Sample::default()
        });
        let screen = screen(100, 30, &model);
        let has = |row: usize, text: &str| assert!(screen[row].contains(text), "{screen:#?}");
        has(0, "demo · inline · up 00:01:01 · q stops · /folder");
        has(2, "transactions   3000");
        has(5, "verdicts       accept 7");
        has(9, "connections    24");
        has(12, "accepted       1234");
        has(13, "rejected       stale_share 5");
        has(16, "● sv2-gateway");
        has(19, "00:01:01 reference-backend does not answer");
    }

    #[test]
    fn any_size_is_drawn() {
        for (columns, rows) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            screen(columns, rows, &Model::default());
        }
    }
}
