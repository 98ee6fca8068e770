//! Every on-disk structure, from the files that own them.

use std::fmt::Write;

use crate::base::format::Layout;

/// The description of every on-disk structure, in the order of their sections: F0 the preamble, F1
/// write batches, F2 logs, F3 tables, F4 the manifest, F5 checkpoints, F6 keyed state.
pub fn layouts() -> Vec<&'static Layout> {
    let owners: [&'static [Layout]; 15] = [
        crate::base::format::LAYOUTS,
        crate::batch::LAYOUTS,
        crate::log::LAYOUTS,
        crate::table::format::LAYOUTS,
        crate::version::edit::LAYOUTS,
        crate::version::meta::LAYOUTS,
        crate::version::current::LAYOUTS,
        &[crate::db::census::LAYOUT, crate::db::options::LAYOUT],
        crate::checkpoint::format::LAYOUTS,
        crate::state::key::LAYOUTS,
        crate::state::list::LAYOUTS,
        crate::state::meta::LAYOUTS,
        crate::state::evolution::LAYOUTS,
        crate::state::ttl::LAYOUTS,
        crate::state::operator_snapshot::LAYOUTS,
    ];
    owners.into_iter().flatten().collect()
}

/// [`layouts`] as the tables of DESIGN.md: a heading and a table each.
pub fn layouts_markdown() -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let mut out = String::new();
    for layout in layouts() {
        let head = "| offset | size | field | meaning |\n|---|---|---|---|";
        let written = writeln!(out, "\n### {} {}\n\n{head}", layout.id, layout.title);
        written.expect("writing to a string");
        for field in layout.fields {
            let cells = [field.offset, field.size, field.name, field.meaning].map(cell);
            let written = writeln!(out, "| {} |", cells.join(" | "));
            written.expect("writing to a string");
        }
    }
    out
}
