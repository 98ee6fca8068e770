//! The report: one page, a chart a group, and the tables of the README.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use plotters::prelude::*;

use crate::engine::Kind;
use crate::goals::GOALS;
use crate::group::GROUPS;
use crate::group::scale::{SHOWN, SIZES};
use crate::table::{Results, short};

/// Where fonts usually are.
const FONTS: [&str; 2] = [
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
];

/// Writes `report.html` and the charts into `into`, and the tables between the marks of `readme`.
/// `scale` are the results of `run --scale`.
pub fn write(
    results: &Results,
    scale: Option<&Results>,
    into: &Path,
    readme: &Path,
) -> Result<(), String> {
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
    let losses = results.losses().unwrap_or_default();
    writeln!(page, "<p>{}</p>", escape(&losses)).expect("a string");
    if let Some(scale) = scale {
        scale_chart(&into.join("scale.png"), scale).map_err(|e| format!("scale.png: {e}"))?;
        let table = escape(&scale.table());
        writeln!(
            page,
            "<h2>Cost against size</h2><img src=\"scale.png\" alt=\"\"><pre>{table}</pre>"
        )
        .expect("a string");
    }
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
    replace(readme, "benchmarks", &goals_of_readme(results))?;
    let scale = scale.and_then(|scale| Some((scale, scale.scale()?)));
    scale.map_or(Ok(()), |(scale, table)| {
        let (date, pages) = (header(scale, "date"), header(scale, "page cache"));
        let (machine, command) = (header(scale, "machine"), header(scale, "command"));
        let others = scale.others() * 100.0;
        let about = format!(
            "{date}; {machine}; `{command}`; other processes took {others:.0} % of the processors \
             meanwhile. Page cache: {pages}."
        );
        replace(readme, "scale", &format!("\n{about}\n\n{table}"))
    })
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

/// Costs against size, a panel an operation, both scales logarithmic.
fn scale_chart(file: &Path, results: &Results) -> Result<(), Box<dyn std::error::Error>> {
    let root = BitMapBackend::new(file, (1000, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let timed = SHOWN.iter().filter(|(_, _, number)| matches!(*number, "rate" | "settled"));
    let millions = SIZES.map(|size| size.trim_end_matches('m').parse::<f64>().expect("a size"));
    for ((name, step, number), panel) in timed.zip(root.split_evenly((2, 4))) {
        let line = |kind: Kind| -> Vec<(f64, f64)> {
            let costs = SIZES.map(|size| results.cost(kind, &format!("{step}-{size}"), number));
            let points = millions.into_iter().zip(costs);
            points.filter_map(|(n, cost)| Some((n.log2(), cost?.log2()))).collect()
        };
        let lines: Vec<_> = results.engines().into_iter().map(|k| (k, line(k))).collect();
        let costs = || lines.iter().flat_map(|(_, line)| line.iter().map(|(_, cost)| *cost));
        let (least, most) = costs().fold((0.0, 0.0), |(a, b): (f64, f64), y| (a.min(y), b.max(y)));
        let mut chart = ChartBuilder::on(&panel)
            .caption(format!("{name}, µs"), ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(44)
            .build_cartesian_2d(-0.3..7.0, least.floor()..most.ceil() + 1.0)?;
        let size = |n: &f64| match millions.contains(&n.exp2()) {
            true => format!("{} M", n.exp2()),
            false => String::new(),
        };
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&size)
            .y_label_formatter(&|cost| short(cost.exp2()))
            .draw()?;
        for (kind, line) in lines {
            let color = Palette99::pick(kind as usize);
            let label = line.last().map(|end| {
                let below = (end.0 - 1.2, end.1 - 0.35);
                Text::new(kind.to_string(), below, ("sans-serif", 12).into_font().color(&color))
            });
            chart.draw_series(line.iter().map(|&at| Circle::new(at, 3, color.filled())))?;
            chart.draw_series([PathElement::new(line, color.stroke_width(2))])?;
            chart.draw_series(label)?;
        }
    }
    root.present()?;
    Ok(())
}

/// Puts a text between two marks of a file.
fn replace(file: &Path, mark: &str, new: &str) -> Result<(), String> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|e| format!("{name}: {e}"))?;
    let (begin, end) = (format!("<!-- {mark} -->"), format!("<!-- /{mark} -->"));
    let parts = text.split_once(&begin).zip(text.split_once(&end));
    let Some(((before, _), (_, behind))) = parts else {
        return Err(format!("{name}: no {begin} and {end}"));
    };
    fs::write(file, format!("{before}{begin}{new}{end}{behind}"))
        .map_err(|e| format!("{name}: {e}"))
}

/// Of several the last: groups are kept one by one.
fn header(results: &Results, name: &str) -> String {
    let values = results.headers.get(name).and_then(|values| values.iter().max());
    values.cloned().unwrap_or_default()
}

fn goals_of_readme(results: &Results) -> String {
    let mut table = String::new();
    write!(
        table,
        "\n{}; {}; `{}`; other processes took {:.0} % of the processors meanwhile. RocksDB is \
         configured as Flink does; medians, ratios with least and greatest.\n\n\
         | | goal | reached | | alluvium | RocksDB |\n|---|---|---|---|---|---|\n",
        header(results, "date"),
        header(results, "machine"),
        header(results, "command"),
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
    if let Some(losses) = results.losses() {
        writeln!(table, "\n{losses}").expect("a string");
    }
    table
}
