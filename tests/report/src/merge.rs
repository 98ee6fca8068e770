//! One report of all parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Counts, commit, error_places, parts_dir, places, pretty, root, target_dir};

/// What a number of the report must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// At least so many.
    AtLeast(u64),
    /// Exactly so many.
    Exactly(u64),
    /// As many as another number.
    As(&'static str),
}

/// The numbers that a report must have: name, goal, and what they are, for people.
pub const NUMBERS: [(&str, Goal, &str); 13] = [
    ("crash_points", Goal::AtLeast(2_000), "moments at which the power was cut"),
    ("images", Goal::AtLeast(100_000), "disks that a power cut could leave, opened and judged"),
    ("policies", Goal::AtLeast(8), "policies of what such a disk keeps"),
    ("model_ops", Goal::AtLeast(2_000_000), "operations compared with a model"),
    ("bytes_flipped", Goal::AtLeast(1), "changed bytes that were judged"),
    ("kills", Goal::AtLeast(300), "processes killed, and their directories judged"),
    ("fuzz_targets", Goal::AtLeast(20), "fuzz targets replayed and mutated"),
    ("canaries_planted", Goal::AtLeast(24), "bugs that can be planted"),
    ("canaries_drawn", Goal::AtLeast(1), "of them planted for this commit"),
    ("canaries_found", Goal::As("canaries_drawn"), "of those found by the harnesses"),
    ("violations", Goal::Exactly(0), "broken promises"),
    (
        "error_places",
        Goal::AtLeast(1),
        "places where recovery, flush, compaction, checkpoint make an error",
    ),
    ("error_places_missed", Goal::Exactly(0), "of them reached by none of this, and no guards"),
];

/// Where the report stands in the README.
const MARKERS: (&str, &str) = ("<!-- reliability -->\n", "<!-- /reliability -->");

/// What all harnesses have exercised at one commit.
#[derive(Debug, Default)]
pub struct Report {
    commit: String,
    seconds: f64,
    parts: BTreeMap<String, f64>,
    counts: Counts,
    groups: BTreeMap<String, Counts>,
    lists: BTreeMap<String, Vec<String>>,
}

impl Report {
    /// Reads all parts that were written for the commit that is checked out.
    ///
    /// # Errors
    /// A part cannot be read, or belongs to another commit.
    pub fn read() -> Result<Report, String> {
        let dir = parts_dir();
        let listing = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut report = Report { commit: commit(), ..Report::default() };
        for entry in listing {
            let path = entry.map_err(|e| e.to_string())?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
                let text = std::fs::read_to_string(&path).map_err(|e| wrong(&e))?;
                let part: Value = serde_json::from_str(&text).map_err(|e| wrong(&e))?;
                report.add(&part).map_err(|e| wrong(&e))?;
            }
        }
        if let Ok(reached) = std::fs::read_to_string(error_places()) {
            report.cover(&reached.lines().map(str::to_owned).collect());
        }
        report.finish();
        Ok(report)
    }

    fn add(&mut self, part: &Value) -> Result<(), String> {
        let of = |name: &str| part.get(name).ok_or_else(|| format!("it has no {name:?}"));
        let name = of("part")?.as_str().ok_or("its name is no text")?.to_owned();
        let commit = of("commit")?.as_str().unwrap_or_default();
        if commit != self.commit {
            return Err(format!("it belongs to {commit}, and this is {}", self.commit));
        }
        let seconds = of("seconds")?.as_f64().ok_or("its seconds are no number")?;
        self.seconds += seconds;
        self.parts.insert(name, seconds);
        add_counts(&mut self.counts, of("counts")?)?;
        for (group, counts) in of("groups")?.as_object().ok_or("groups are no object")? {
            add_counts(self.groups.entry(group.clone()).or_default(), counts)?;
        }
        for (list, lines) in of("lists")?.as_object().ok_or("lists are no object")? {
            let lines = lines.as_array().ok_or("a list is no array")?.iter();
            let lines = lines.filter_map(|line| line.as_str().map(str::to_owned));
            self.lists.entry(list.clone()).or_default().extend(lines);
        }
        Ok(())
    }

    /// Compares the places that make errors with those that were reached.
    fn cover(&mut self, reached: &BTreeSet<String>) {
        let (all, missed) = places::missed(&root().join("src"), reached);
        let (guards, missed): (Vec<_>, Vec<_>) =
            missed.into_iter().partition(|place| places::guard(place).is_some());
        let why = |place: String| {
            let why = places::guard(&place).unwrap_or_default();
            format!("{place} ({why})")
        };
        self.counts.insert("error_places".to_owned(), all);
        for (name, places) in [
            ("error_places_guards", guards.into_iter().map(why).collect()),
            ("error_places_missed", missed),
        ] {
            self.counts.insert(name.to_owned(), places.len() as u64);
            self.lists.insert(name.to_owned(), places);
        }
    }

    /// Some numbers are made of others.
    fn finish(&mut self) {
        if let Some(policies) = self.groups.get("images_by_policy") {
            self.counts.insert("policies".to_owned(), policies.len() as u64);
        }
    }

    /// Everything that keeps this from being the report of a whole lane: numbers that nobody has
    /// counted, and goals that are missed. Numbers in `without` need not be there.
    pub fn failings(&self, without: &[&str]) -> Vec<String> {
        let mut failings = Vec::new();
        for (name, goal, _) in NUMBERS {
            if without.contains(&name) && !self.counts.contains_key(name) {
                continue;
            }
            let Some(&n) = self.counts.get(name) else {
                failings.push(format!("nobody has counted {name}: a part is missing"));
                continue;
            };
            let met = match goal {
                Goal::AtLeast(least) => n >= least,
                Goal::Exactly(wanted) => n == wanted,
                Goal::As(other) => Some(&n) == self.counts.get(other),
            };
            if !met {
                failings.push(format!("{name} is {n}, the goal {goal:?}"));
            }
        }
        failings.extend(self.lists.get("error_places_missed").into_iter().flatten().cloned());
        failings
    }

    /// The report as JSON: every number by its name, then what they are made of.
    pub fn json(&self) -> String {
        let mut object = Map::new();
        object.insert("commit".into(), self.commit.clone().into());
        object.insert("seconds".into(), self.seconds.round().into());
        for (name, n) in &self.counts {
            object.insert(name.clone(), (*n).into());
        }
        object.insert("groups".into(), json!(self.groups));
        object.insert("lists".into(), json!(self.lists));
        object.insert("seconds_by_part".into(), json!(self.parts));
        pretty(&Value::Object(object))
    }

    /// Writes `target/reliability.json`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self) -> std::io::Result<()> {
        std::fs::write(target_dir().join("reliability.json"), self.json())
    }

    /// The report as a table in Markdown.
    pub fn table(&self) -> String {
        let mut out = String::from("| what was exercised | |\n|---|--:|\n");
        for (name, _, text) in NUMBERS {
            let n = self.counts.get(name).map_or("not counted".to_owned(), |n| grouped(*n));
            writeln!(out, "| {text} | {n} |").expect("a string");
        }
        if let Some(n) = self.counts.get("error_places_guards") {
            writeln!(out, "| of them guards that nothing leads to | {} |", grouped(*n))
                .expect("a string");
        }
        let minutes = self.seconds / 60.0;
        writeln!(out, "\nCommit {:.10}, {minutes:.1} minutes.", self.commit).expect("a string");
        out
    }

    /// Puts the table between the markers of the README.
    ///
    /// # Errors
    /// Those of the file system; there are no markers.
    pub fn update_readme(&self) -> Result<(), String> {
        let path = root().join("README.md");
        let text = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
        let text = between(&text, &self.table()).ok_or("the README has no place for it")?;
        std::fs::write(Path::new(&path), text).map_err(|e| e.to_string())
    }
}

fn between(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(MARKERS.0)?;
    let (_, after) = rest.split_once(MARKERS.1)?;
    Some(format!("{before}{}{table}{}{after}", MARKERS.0, MARKERS.1))
}

fn add_counts(counts: &mut Counts, value: &Value) -> Result<(), String> {
    for (name, n) in value.as_object().ok_or("counts are no object")? {
        let n = n.as_u64().ok_or_else(|| format!("{name} is no count"))?;
        *counts.entry(name.clone()).or_default() += n;
    }
    Ok(())
}

/// With a comma every three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, commit: &str, counts: Value) -> Value {
        let groups = json!({ "images_by_policy": { name: 2 } });
        let lists = json!({ "uncovered": [name] });
        json!({
            "part": name, "commit": commit, "seconds": 1.5,
            "counts": counts, "groups": groups, "lists": lists,
        })
    }

    fn report() -> Report {
        Report { commit: "abc".to_owned(), ..Report::default() }
    }

    #[test]
    fn parts_add_up() {
        let mut report = report();
        report.add(&part("a", "abc", json!({ "images": 3, "violations": 0 }))).unwrap();
        report.add(&part("b", "abc", json!({ "images": 4, "kills": 1_234_567 }))).unwrap();
        report.finish();
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&value["images"], &value["policies"]), (&json!(7), &json!(2)));
        assert_eq!((&value["seconds"], &value["violations"]), (&json!(3.0), &json!(0)));
        assert_eq!(value["lists"]["uncovered"], json!(["a", "b"]));
        assert!(report.table().contains(" 1,234,567 "), "{}", report.table());
    }

    #[test]
    fn another_commits_part_is_refused() {
        let e = report().add(&part("a", "def", json!({}))).unwrap_err();
        assert!(e.contains("belongs to def"), "{e}");
        assert!(report().add(&json!({ "part": "a" })).is_err());
        assert!(report().add(&part("a", "abc", json!({ "images": -1 }))).is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut report = report();
        let met: Counts = NUMBERS
            .iter()
            .map(|(name, goal, _)| match goal {
                Goal::AtLeast(n) | Goal::Exactly(n) => ((*name).to_owned(), *n),
                Goal::As(_) => ((*name).to_owned(), 1),
            })
            .collect();
        assert_eq!(report.failings(&[]).len(), NUMBERS.len());
        assert_eq!(report.failings(&["kills", "images"]).len(), NUMBERS.len() - 2);
        report.counts = met.clone();
        assert!(report.failings(&[]).is_empty(), "{:?}", report.failings(&[]));
        let missed = "src/db/x.rs:1: Error::new(x)".to_owned();
        report.lists.insert("error_places_missed".to_owned(), vec![missed.clone()]);
        assert_eq!(report.failings(&[]), [missed], "by name");
        report.lists.clear();
        for (name, n) in
            [("kills", 299), ("violations", 1), ("canaries_found", 0), ("error_places_missed", 1)]
        {
            report.counts = met.clone();
            report.counts.insert(name.to_owned(), n);
            assert!(report.failings(&[])[0].starts_with(name), "{:?}", report.failings(&[]));
        }
    }

    #[test]
    fn the_readme_keeps_what_stands_around() {
        let text = format!("before {}old{} after", MARKERS.0, MARKERS.1);
        let new = between(&text, "new\n").unwrap();
        assert_eq!(new, format!("before {}new\n{} after", MARKERS.0, MARKERS.1));
        assert!(between("nothing", "new").is_none());
    }
}
