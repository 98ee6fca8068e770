//! Who is timed when. Each engine lives in a process of its own, so that memory, processor time and
//! bytes written are its own; all processes of a group stand side by side and do each step one after
//! another, so that a disturbance of the machine meets all alike. The order of the engines turns from
//! round to round.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

use crate::args::{self, Args, Size};
use crate::engine::Kind;
use crate::group::{GroupKind, scale};
use crate::meter::Measure;
use crate::page_cache::{Cgroup, PageCache, drop_pages};
use crate::table::{Results, Row};

/// Times what is to be timed, and prints the table.
pub fn main(args: &Args) -> ExitCode {
    let folder = args.results.join(args.size.name());
    fs::create_dir_all(&folder).expect("a directory for the results");
    if args.command == args::Command::Run {
        let pages = match args.size {
            Size::Scale => PageCache::limited(scale::MEMORY + scale::BESIDES),
            _ => PageCache::Free,
        };
        for group in &args.groups {
            let file = folder.join(format!("{}.tsv", group.name));
            if args.size != Size::Quick && !args.again && file.exists() {
                eprintln!("{}: done before", group.name);
                continue;
            }
            let rows = time(args, group, pages);
            let mut out = header(args, pages);
            rows.iter().for_each(|row| out += &format!("{row}\n"));
            fs::write(file, out).expect("the results can be kept");
        }
    }
    match Results::load(&folder) {
        #[cfg(feature = "report")]
        Ok(results) if args.command == args::Command::Report => {
            let readme = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
            let scale = Results::load(&args.results.join(Size::Scale.name())).ok();
            match crate::report::write(&results, scale.as_ref(), &folder.join("report"), readme) {
                Ok(()) => ExitCode::SUCCESS,
                Err(text) => args::refuse(&text),
            }
        }
        Ok(results) => {
            print!("{}", results.table());
            ExitCode::SUCCESS
        }
        Err(text) => args::refuse(&text),
    }
}

fn header(args: &Args, pages: PageCache) -> String {
    let output = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.unwrap_or_default()
    };
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = std::thread::available_parallelism().map_or(0, |n| n.get());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok());
    format!(
        "# date\t{}\n# machine\t{} processors of {}, {} GiB\n# command\talluvium-bench {}\n\
         # build\t{} {}\n# page cache\t{pages}\n",
        output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        count,
        model.trim_start_matches([':', '\t', ' ']),
        memory.unwrap_or(0) >> 20,
        args.line,
        output("git", &["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"]),
        output("rustc", &["--version"]),
    )
}

fn time(args: &Args, group: &GroupKind, pages: PageCache) -> Vec<Row> {
    let mut rows = Vec::new();
    let begin = Instant::now();
    for round in 0..args.rounds {
        let mut order = args.engines.clone();
        order.rotate_left(round % args.engines.len());
        let mut servers: Vec<Server> =
            order.iter().map(|kind| Server::start(*kind, group, args, pages)).collect();
        let last = args.steps.iter().filter_map(|step| group.steps.iter().position(|s| s == step));
        let last = last.max().unwrap_or(group.steps.len() - 1);
        for &step in &group.steps[..=last] {
            for server in &mut servers {
                let begin = Instant::now();
                if let Some(measure) = server.step(step) {
                    if args.size == Size::Scale {
                        eprintln!("{step}, {}: {:.0?}", server.kind, begin.elapsed());
                    }
                    let (group, step) = (group.name.to_owned(), step.to_owned());
                    rows.push(Row { group, step, engine: server.kind, round, measure });
                }
            }
        }
        for server in servers {
            server.stop();
        }
        eprintln!(
            "{}: round {} of {}: {:.0?}",
            group.name,
            round + 1,
            args.rounds,
            begin.elapsed()
        );
    }
    rows
}

/// An engine in a process of its own.
struct Server {
    kind: Kind,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    dir: tempdir::Dir,
    pages: PageCache,
    /// Limits its memory; removed when it has ended.
    _cgroup: Option<Cgroup>,
    /// It died; its error was shown.
    dead: bool,
}

impl Server {
    fn start(kind: Kind, group: &GroupKind, args: &Args, pages: PageCache) -> Server {
        let dir = tempdir::Dir::new(&args.dir, kind);
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["serve", &kind.to_string(), group.name])
            .arg(args.size.name())
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process for the engine");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let cgroup = match pages {
            PageCache::Limited(bytes) => Some(Cgroup::new(bytes).expect("a cgroup as before")),
            PageCache::Free | PageCache::Dropped => None,
        };
        // It has not been told to do anything yet.
        cgroup.iter().for_each(|cgroup| cgroup.enter(child.id()).expect("a place in the cgroup"));
        Server { kind, child, input, output, dir, pages, _cgroup: cgroup, dead: false }
    }

    fn step(&mut self, step: &str) -> Option<Measure> {
        if self.dead {
            return None;
        }
        if let PageCache::Dropped = self.pages {
            drop_pages(self.dir.path());
        }
        let mut line = String::new();
        let asked = writeln!(self.input, "{step}").and_then(|()| self.output.read_line(&mut line));
        if !matches!(asked, Ok(len) if len > 0) {
            eprintln!("{}: {step}: FAILED", self.kind);
            self.dead = true;
            return None;
        }
        match line.trim_end() {
            "-" => None,
            text => Some(text.parse().expect("a measure")),
        }
    }

    fn stop(mut self) {
        drop(self.input);
        self.child.wait().expect("the process ends");
        self.dir.remove();
    }
}

/// The other side: does the steps that it is told to do.
pub fn serve(kind: Kind, group: &str, full: bool, dir: &Path) {
    let mut group = GroupKind::named(group).expect("a group").begin(kind, dir, full);
    for line in io::stdin().lines() {
        let reply = match group.step(&line.expect("a line")) {
            Some(measure) => measure.to_string(),
            None => "-".to_owned(),
        };
        println!("{reply}");
    }
}

mod tempdir {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::engine::Kind;

    /// A directory that goes with its owner.
    pub struct Dir(PathBuf);

    impl Dir {
        /// The name of a new one; the engine makes it.
        pub fn new(parent: &Path, kind: Kind) -> Dir {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            Dir(parent.join(format!("alluvium-bench-{}-{number}-{kind}", std::process::id())))
        }

        pub fn path(&self) -> &Path {
            &self.0
        }

        pub fn remove(&self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            self.remove();
        }
    }
}
