//! The report: one page, a chart a group, and the table of the README.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use plotters::prelude::*;

use crate::engine::Kind;
use crate::goals::GOALS;
use crate::group::GROUPS;
use crate::table::{Results, short};

/// Where fonts usually are.
const FONTS: [&str; 2] = [
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
];

const BEGIN: &str = "<!-- benchmarks -->";
const END: &str = "<!-- /benchmarks -->";

/// Writes `report.html` and the charts into `into`, and the table between the marks of `readme`.
pub fn write(results: &Results, into: &Path, readme: &Path) -> Result<(), String> {
    fs::create_dir_all(into).map_err(|e| e.to_string())?;
    let engines = results.engines();
    let font = FONTS.iter().find_map(|path| fs::read(path).ok());
    let font = font.ok_or("no font for the charts: apt-get install fonts-dejavu-core")?;
    plotters::style::register_font("sans-serif", FontStyle::Normal, font.leak())
        .map_err(|_| "not a font".to_owned())?;
    let mut page = String::from(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>alluvium: measured</title>\n\
         <style>body{font:14px sans-serif;margin:2em}td,th{padding:2px 9px;text-align:right}\
         td:first-child{text-align:left}.lost{background:#fdd}.won{background:#dfd}</style>\n\
         <h1>What was measured</h1>\n",
    );
    for (name, values) in &results.headers {
        let values = values.iter().map(|value| escape(value)).collect::<Vec<_>>().join("; ");
        writeln!(page, "<p><b>{name}</b>: {values}</p>").expect("a string");
    }
    let others = results.others() * 100.0;
    writeln!(page, "<p>Other processes took {others:.0} % of the processors meanwhile.</p>")
        .expect("a string");
    write_goals(&mut page, results, &engines);
    for group in GROUPS {
        let bars = bars(results, group.steps, &engines);
        if bars.is_empty() {
            continue;
        }
        let file = format!("{}.png", group.name);
        chart(&into.join(&file), group.about, &bars).map_err(|e| format!("{file}: {e}"))?;
        writeln!(page, "<h2>{}: {}</h2><img src=\"{file}\" alt=\"\">", group.name, group.about)
            .expect("a string");
    }
    writeln!(page, "<h2>All numbers</h2><pre>{}</pre></html>", escape(&results.table()))
        .expect("a string");
    fs::write(into.join("report.html"), page).map_err(|e| e.to_string())?;
    write_readme(results, readme)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn write_goals(page: &mut String, results: &Results, engines: &[Kind]) {
    *page += "<table><tr><th></th><th>goal</th><th>reached</th>";
    engines.iter().for_each(|kind| write!(page, "<th>{kind}</th>").expect("a string"));
    *page += "</tr>\n";
    for goal in GOALS {
        let Some(verdict) = results.verdict(*goal, Kind::Alluvium) else { continue };
        let class = if verdict.is_reached { "won" } else { "lost" };
        let (wanted, reached) = (verdict.wanted, verdict.reached);
        write!(page, "<tr class={class}><td>{}</td><td>{wanted}</td><td>{reached}</td>", goal.name)
            .expect("a string");
        for kind in engines {
            let spread = results.spread(*kind, goal.step, goal.number);
            let text = spread.map_or("–".into(), |spread| spread.to_string());
            write!(page, "<td>{text}</td>").expect("a string");
        }
        *page += "</tr>\n";
    }
    *page += "</table>\n";
}

/// A step, an engine, and its rate as a multiple of RocksDB's.
fn bars(results: &Results, steps: &[&'static str], engines: &[Kind]) -> Vec<(String, Kind, f64)> {
    let mut bars = Vec::new();
    for step in steps {
        for kind in engines.iter().filter(|kind| **kind != Kind::RocksDb) {
            let rate = results.ratio((*kind, step, "rate"), (Kind::RocksDb, step, "rate"));
            let time = results.ratio((Kind::RocksDb, step, "ms"), (*kind, step, "ms"));
            if let Some(ratio) = rate.or(time) {
                bars.push(((*step).to_owned(), *kind, ratio.median));
            }
        }
    }
    bars
}

/// Bars to the right of one are faster than RocksDB, bars to the left slower.
fn chart(
    file: &Path,
    title: &str,
    bars: &[(String, Kind, f64)],
) -> Result<(), Box<dyn std::error::Error>> {
    let height = 90 + 22 * bars.len() as u32;
    let root = BitMapBackend::new(file, (900, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let reach = bars.iter().map(|bar| bar.2.log2().abs()).fold(1.0, f64::max).ceil();
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{title}: times RocksDB"), ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(0)
        .build_cartesian_2d(-reach - 3.0..reach, 0.0..bars.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|x| format!("{}×", short(x.exp2())))
        .draw()?;
    for (row, (step, kind, ratio)) in bars.iter().rev().enumerate() {
        let (low, high) = (row as f64 + 0.15, row as f64 + 0.85);
        let at = ratio.log2();
        let color = Palette99::pick(*kind as usize);
        let bar = Rectangle::new([(at.min(0.0), low), (at.max(0.0), high)], color.filled());
        let label = format!("{step}, {kind}: {}×", short(*ratio));
        let text = Text::new(label, (-reach - 2.95, high), ("sans-serif", 13));
        chart.draw_series([bar])?;
        chart.draw_series([text])?;
    }
    root.present()?;
    Ok(())
}

fn write_readme(results: &Results, readme: &Path) -> Result<(), String> {
    let text = fs::read_to_string(readme).map_err(|e| format!("{}: {e}", readme.display()))?;
    let (Some(begin), Some(end)) = (text.find(BEGIN), text.find(END)) else {
        return Err(format!("{}: no {BEGIN} and {END}", readme.display()));
    };
    let mut table = String::new();
    let header = |name: &str| {
        // Of several dates the last: groups are kept one by one.
        results
            .headers
            .get(name)
            .and_then(|values| values.iter().max())
            .cloned()
            .unwrap_or_default()
    };
    write!(
        table,
        "\n{}; {}; `{}`; other processes took {:.0} % of the processors meanwhile. RocksDB is \
         configured as Flink does; medians, ratios with least and greatest.\n\n\
         | | goal | reached | | alluvium | RocksDB |\n|---|---|---|---|---|---|\n",
        header("date"),
        header("machine"),
        header("command"),
        results.others() * 100.0
    )
    .expect("a string");
    for goal in GOALS {
        let Some(verdict) = results.verdict(*goal, Kind::Alluvium) else { continue };
        let show = |kind| {
            let spread = results.spread(kind, goal.step, goal.number);
            spread.map_or("–".to_owned(), |spread| short(spread.median))
        };
        let mark = if verdict.is_reached { "reached" } else { "**missed**" };
        let (wanted, reached) = (verdict.wanted, verdict.reached);
        let (ours, theirs) = (show(Kind::Alluvium), show(Kind::RocksDb));
        writeln!(table, "| {} | {wanted} | {reached} | {mark} | {ours} | {theirs} |", goal.name)
            .expect("a string");
    }
    let new = format!("{}{table}{}", &text[..begin + BEGIN.len()], &text[end..]);
    fs::write(readme, new).map_err(|e| format!("{}: {e}", readme.display()))
}
