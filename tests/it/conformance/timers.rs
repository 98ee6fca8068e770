//! Queues of timers and timer services: `InternalPriorityQueueTestBase`, its key-grouped variant, and
//! `InternalTimerServiceImplTest`. (`testBulkAddRestoredElements` with bag semantics, metrics and the
//! legacy raw-state formats have no counterpart.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    BackendOptions, Db, Env, ErrorKind, FileSet, ImportFamily, ImportSource, JavaHash,
    KeyGroupRange, MemFs, MemoryBudget, StateBackend, Timer, TimerQueue, TimerService,
    assign_key_group,
};

use super::job::backend_options;

/// An environment in memory.
pub fn env() -> Env {
    Env::simulated(Arc::new(MemFs::new()), MemoryBudget::new(64 << 20), 5)
}

/// One backend's part of a checkpoint, as another backend takes it.
pub fn source(set: &FileSet, groups: KeyGroupRange) -> ImportSource {
    let families = set.families().iter().map(|family| ImportFamily::of(set, family).unwrap());
    ImportSource { seqno: set.seqno(), clip: groups.key_range(), families: families.collect() }
}

/// A backend for `range` of what was checkpointed.
pub fn restore<K: alluvium::Builtin + JavaHash>(
    env: &Env,
    dir: &str,
    set: &FileSet,
    options: BackendOptions,
) -> StateBackend<K> {
    let sources = [source(set, options.key_groups)];
    let db = Db::import(Path::new(dir), options.db.clone(), env.clone(), &sources).unwrap();
    StateBackend::from_db(db, options).unwrap()
}

pub fn range(start: u16, end: u16) -> KeyGroupRange {
    KeyGroupRange::new(start, end).unwrap()
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// A queue whose elements are keys with a priority, on ten key groups, which holds little in memory.
struct Queue {
    backend: StateBackend<String>,
    timers: TimerService<String>,
}

type Element = (i64, String);

fn element(timer: Timer<String>) -> Element {
    (timer.time, timer.key)
}

impl Queue {
    fn new() -> Queue {
        let mut options = backend_options(10, range(0, 9));
        options.timer_cache = 2;
        let mut backend = StateBackend::open(Path::new("queue"), options, env()).unwrap();
        let timers = backend.timer_service("t").unwrap();
        Queue { backend, timers }
    }

    fn set(&mut self, key: &str) -> &mut TimerQueue<String> {
        self.backend.set_current_key(&key.to_owned()).unwrap();
        self.timers.event_time()
    }

    fn add(&mut self, key: &str, priority: i64) -> bool {
        self.set(key).add(priority, &()).unwrap()
    }

    fn remove(&mut self, key: &str, priority: i64) -> bool {
        self.set(key).remove(priority, &()).unwrap()
    }

    fn peek(&mut self) -> Option<Element> {
        self.timers.event_time().peek().unwrap().map(element)
    }

    fn poll(&mut self) -> Option<Element> {
        self.timers.event_time().poll().unwrap().map(element)
    }

    fn len(&mut self) -> usize {
        self.timers.event_time().len().unwrap()
    }

    fn all(&mut self) -> Vec<Element> {
        self.timers.event_time().iter().unwrap().map(|timer| element(timer.unwrap())).collect()
    }

    fn subset(&mut self, group: u16) -> BTreeSet<Element> {
        let timers = self.timers.event_time().key_group(group).unwrap();
        timers.map(|timer| element(timer.unwrap())).collect()
    }

    /// `n` random elements, a tenth of them with the priority of another.
    fn fill(&mut self, n: u64, rng: &mut Rng) -> BTreeSet<Element> {
        let mut all = BTreeSet::new();
        while (all.len() as u64) < n {
            let key = rng.below(1 << 40).to_string();
            let priority = rng.below(5 * n) as i64 - 2 * n as i64;
            let changed = self.add(&key, priority);
            all.insert((priority, key.clone()));
            if self.peek() == Some((priority, key)) {
                assert!(changed, "a new head is told");
            }
        }
        all
    }
}

fn elements<const N: usize>(list: [(&str, i64); N]) -> BTreeSet<Element> {
    list.map(|(key, priority)| (priority, key.to_owned())).into()
}

fn check_the_vector(mut queue: Queue) {
    assert_eq!(queue.subset(1), elements([("a", 42), ("a", 44)]));
    assert_eq!(queue.subset(8), elements([("b", 1), ("b", 3)]));
    assert_eq!(queue.peek(), Some((1, "b".to_owned())));
    assert_eq!(queue.poll(), Some((1, "b".to_owned())));
    assert_eq!(queue.peek(), Some((3, "b".to_owned())));
    let rest: BTreeSet<_> = queue.all().into_iter().collect();
    assert_eq!(rest, elements([("b", 3), ("a", 42), ("a", 44)]));
    assert_eq!(queue.len(), 3);
    assert!(!queue.remove("b", 1));
    assert!(queue.remove("b", 3));
    assert_eq!(queue.peek(), Some((42, "a".to_owned())));
}

#[test]
fn test_key_grouped_internal_priority_queue() {
    let mut queue = Queue::new();
    let adds = [("a", 44), ("b", 1), ("b", 1), ("b", 3), ("a", 42)];
    let changed = adds.map(|(key, priority)| queue.add(key, priority));
    assert_eq!(changed, [true, true, false, false, false]);
    check_the_vector(queue);
}

#[test]
fn test_key_grouped_internal_priority_queue_add_all() {
    let mut queue = Queue::new();
    for (key, priority) in [("a", 44), ("b", 1), ("b", 3), ("a", 42), ("a", 44)] {
        queue.add(key, priority);
    }
    check_the_vector(queue);
}

#[test]
fn test_peek_poll_order() {
    let (mut queue, mut rng) = (Queue::new(), Rng(1));
    let mut all = queue.fill(1000, &mut rng);
    let mut last = i64::MIN;
    while let Some(peeked) = queue.peek() {
        assert_eq!(queue.poll().as_ref(), Some(&peeked));
        assert!(peeked.0 >= last);
        last = peeked.0;
        assert!(all.remove(&peeked));
        if all.len().is_multiple_of(100) {
            assert_eq!(queue.len(), all.len());
        }
    }
    assert!(all.is_empty());
}

#[test]
fn test_remove_insert_mix_keeps_order() {
    let (mut queue, mut rng) = (Queue::new(), Rng(2));
    let mut all = queue.fill(300, &mut rng);
    while !all.is_empty() {
        let removed = all.iter().nth(rng.below(all.len() as u64) as usize).unwrap().clone();
        let was_head = queue.peek().as_ref() == Some(&removed);
        assert_eq!(queue.remove(&removed.1, removed.0), was_head);
        all.remove(&removed);
        let mut last = i64::MIN;
        for _ in 0..rng.below(8) {
            let Some(polled) = queue.poll() else { break };
            assert!(polled.0 >= last && all.remove(&polled), "in order, each once");
            last = polled.0;
            if rng.below(3) == 0 {
                let new = (last + rng.below(40) as i64, format!("n{}", rng.below(1 << 30)));
                queue.add(&new.1, new.0);
                all.insert(new);
            }
        }
    }
    assert_eq!(queue.poll(), None);
}

#[test]
fn test_poll() {
    let (mut queue, mut rng) = (Queue::new(), Rng(3));
    assert_eq!(queue.poll(), None);
    queue.fill(345, &mut rng);
    let polled: Vec<i64> = std::iter::from_fn(|| queue.poll()).map(|e| e.0).collect();
    assert!(polled.len() == 345 && polled.is_sorted());
    assert_eq!(queue.poll(), None);
}

#[test]
fn test_is_empty() {
    let mut queue = Queue::new();
    assert!(queue.timers.event_time().is_empty().unwrap());
    queue.add("a", 4711);
    assert!(!queue.timers.event_time().is_empty().unwrap());
    queue.poll();
    assert!(queue.timers.event_time().is_empty().unwrap());
}

#[test]
fn test_bulk_add_restored_elements() {
    let mut queue = Queue::new();
    for _ in 0..3 {
        for i in 0..10 {
            queue.add(&i.to_string(), i);
        }
    }
    assert_eq!(queue.len(), 10, "a set");
}

#[test]
fn test_iterator() {
    let (mut queue, mut rng) = (Queue::new(), Rng(4));
    assert!(queue.all().is_empty());
    let all = queue.fill(10, &mut rng);
    let visited = queue.all();
    assert_eq!(visited.len(), 10);
    assert_eq!(visited.into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn test_add() {
    let mut queue = Queue::new();
    assert!(queue.add("large", 9));
    assert!(queue.add("small", 4), "a smaller one is the new head");
    assert!(!queue.add("small", 4), "an equal one is there already");
    assert_eq!(queue.len(), 2);
    assert_eq!([queue.poll().unwrap().0, queue.poll().unwrap().0], [4, 9]);
}

#[test]
fn test_remove() {
    let mut queue = Queue::new();
    assert!(!queue.remove("a", 4711));
    assert!(queue.add("a", 4711));
    assert!(queue.remove("a", 4711));
    assert!(!queue.remove("a", 4711));
    assert_eq!((queue.peek(), queue.len()), (None, 0));
}

#[test]
fn test_get_subset_for_key_group() {
    let (mut queue, mut rng) = (Queue::new(), Rng(5));
    let mut all = queue.fill(200, &mut rng);
    for group in 0..10 {
        for element in queue.subset(group) {
            assert_eq!(assign_key_group(element.1.java_hash(), 10), group);
            assert!(all.remove(&element));
        }
    }
    assert!(all.is_empty());
}

#[test]
fn poll_order_of_the_sample_that_was_run_on_flink() {
    let mut queue = Queue::new();
    let adds = [("a", 1000), ("a", -5), ("abc", 1000), ("", 500), ("a", 1000)];
    let changed = adds.map(|(key, priority)| queue.add(key, priority));
    assert_eq!(changed, [true, true, false, false, false]);
    assert_eq!(queue.len(), 4);
    let polled: Vec<i64> = std::iter::from_fn(|| queue.poll()).map(|e| e.0).collect();
    assert_eq!(polled, [-5, 500, 1000, 1000]);
}

/// Start, end and number of key groups.
const RANGES: [(u16, u16, u32); 6] =
    [(0, 32766, 32767), (0, 10, 32767), (0, 10, 10), (10, 32766, 32767), (2, 5, 100), (2, 5, 6)];

/// A timer service of integers with strings as namespaces.
struct Service {
    env: Env,
    options: BackendOptions,
    backend: StateBackend<i32>,
    timers: TimerService<i32, String>,
}

impl Service {
    fn new((start, end, max): (u16, u16, u32)) -> Service {
        let end = end.min((max - 1) as u16);
        let (env, options) = (env(), backend_options(max, range(start, end)));
        let backend = StateBackend::open(Path::new("s"), options.clone(), env.clone()).unwrap();
        Service::of(env, options, backend)
    }

    fn of(env: Env, options: BackendOptions, mut backend: StateBackend<i32>) -> Service {
        let timers = backend.timer_service("timers").unwrap();
        Service { env, options, backend, timers }
    }

    /// Keys of the backend's groups, from 0 upwards.
    fn keys(&self) -> impl Iterator<Item = i32> + use<> {
        let (groups, max) = (self.options.key_groups, self.options.max_parallelism);
        (0..).filter(move |key: &i32| groups.contains(assign_key_group(key.java_hash(), max)))
    }

    fn two_keys(&self) -> [i32; 2] {
        let mut keys = self.keys();
        [keys.next().unwrap(), keys.next().unwrap()]
    }

    fn set(&mut self, key: i32) -> &mut TimerService<i32, String> {
        self.backend.set_current_key(&key).unwrap();
        &mut self.timers
    }

    /// Fires what is due; the current key is the timer's.
    fn fire(&mut self, event: bool) -> Vec<(i32, String)> {
        let mut fired = Vec::new();
        loop {
            let next = match event {
                true => self.timers.next_event_time_timer(&mut self.backend),
                false => self.timers.next_processing_time_timer(&mut self.backend),
            };
            let Some(timer) = next.unwrap() else { break };
            let group = assign_key_group(timer.key.java_hash(), self.options.max_parallelism);
            assert_eq!(self.backend.current_key_group(), Some(group));
            fired.push((timer.key, timer.namespace));
        }
        fired.sort();
        fired
    }

    fn counts(&mut self) -> (usize, usize) {
        let event = self.timers.num_event_time_timers().unwrap();
        (event, self.timers.num_processing_time_timers().unwrap())
    }

    /// Timers of processing time in a namespace.
    fn count_in(&mut self, namespace: &str) -> usize {
        let all = self.timers.processing_time().iter().unwrap();
        all.filter(|timer| timer.as_ref().unwrap().namespace == namespace).count()
    }
}

fn namespaces() -> [String; 2] {
    ["hello".to_owned(), "ciao".to_owned()]
}

fn pairs(list: &[(i32, &str)]) -> Vec<(i32, String)> {
    let mut list: Vec<_> = list.iter().map(|(key, name)| (*key, (*name).to_owned())).collect();
    list.sort();
    list
}

/// All combinations of two keys and two namespaces at time 10, of both kinds of time.
fn with_four(ranges: (u16, u16, u32)) -> (Service, [i32; 2]) {
    let mut service = Service::new(ranges);
    let keys = service.two_keys();
    for key in keys {
        for namespace in namespaces() {
            let timers = service.set(key);
            timers.register_event_time_timer(&namespace, 10).unwrap();
            timers.register_processing_time_timer(&namespace, 10).unwrap();
        }
    }
    assert_eq!(service.counts(), (4, 4));
    (service, keys)
}

#[test]
fn test_key_group_start_index_setting() {
    let mut service = Service::new((7, 9, 10));
    assert_eq!(service.backend.key_groups(), range(7, 9));
    let key = service.two_keys()[0];
    let group = assign_key_group(key.java_hash(), 10);
    service.set(key).register_event_time_timer(&"n".to_owned(), 1).unwrap();
    assert_eq!(service.timers.event_time().key_group(group).unwrap().count(), 1);
    assert_eq!(service.timers.event_time().key_group(0).unwrap().count(), 0);
}

#[test]
fn test_timer_assignment_to_key_groups() {
    let mut service = Service::new((0, 99, 100));
    let mut want: BTreeMap<u16, BTreeSet<(i64, i32, String)>> = BTreeMap::new();
    for i in 0..100 {
        let (time, namespace) = (10 + i64::from(i), format!("hello_world_{i}"));
        let timers = service.set(i);
        timers.register_event_time_timer(&namespace, time).unwrap();
        timers.register_processing_time_timer(&namespace, time).unwrap();
        let group = assign_key_group(i.java_hash(), 100);
        want.entry(group).or_default().insert((time, i, namespace));
    }
    for group in 0..100 {
        let want = want.remove(&group).unwrap_or_default();
        for queue in [
            service.timers.event_time().key_group(group),
            service.timers.processing_time().key_group(group),
        ] {
            let got = queue.unwrap().map(|t| t.unwrap());
            let got: BTreeSet<_> = got.map(|t| (t.time, t.key, t.namespace)).collect();
            assert_eq!(got, want);
        }
    }
}

#[test]
fn test_only_sets_one_physical_processing_time_timer() {
    for ranges in RANGES {
        let mut service = Service::new(ranges);
        let key = service.two_keys()[0];
        let [hello, ciao] = namespaces();
        for time in [10, 20, 30] {
            service.set(key).register_processing_time_timer(&ciao, time).unwrap();
        }
        for time in [10, 20] {
            service.set(key).register_processing_time_timer(&hello, time).unwrap();
        }
        assert_eq!(
            (service.counts().1, service.count_in("hello"), service.count_in("ciao")),
            (5, 2, 3)
        );
        // What the clock must be set to is always one time: that of the first timer.
        for (time, fired, next) in [(10, 2, Some(20)), (20, 2, Some(30)), (30, 1, None)] {
            assert_eq!(service.timers.next_processing_time().unwrap(), Some(time));
            service.timers.advance_processing_time(time);
            assert_eq!(service.fire(false).len(), fired);
            assert_eq!(service.timers.next_processing_time().unwrap(), next);
        }
        assert_eq!(service.counts(), (0, 0));
        service.set(key).register_processing_time_timer(&ciao, 40).unwrap();
        assert_eq!(service.timers.next_processing_time().unwrap(), Some(40));
    }
}

#[test]
fn test_register_earlier_processing_timer_moves_physical_processing_timer() {
    let mut service = Service::new((0, 9, 10));
    let ciao = "ciao".to_owned();
    service.set(1).register_processing_time_timer(&ciao, 20).unwrap();
    assert_eq!(service.timers.next_processing_time().unwrap(), Some(20));
    service.set(1).register_processing_time_timer(&ciao, 10).unwrap();
    assert_eq!(service.timers.next_processing_time().unwrap(), Some(10));
    assert_eq!(service.counts().1, 2);
}

#[test]
fn test_registering_processing_time_timer_in_on_processing_time_does_not_leak_physical_timers() {
    let mut service = Service::new((0, 9, 10));
    let ciao = "ciao".to_owned();
    service.set(1).register_processing_time_timer(&ciao, 10).unwrap();
    for time in [10, 20, 30] {
        let Service { backend, timers, .. } = &mut service;
        assert_eq!(timers.next_processing_time().unwrap(), Some(time));
        timers.advance_processing_time(time);
        let timer = timers.next_processing_time_timer(backend).unwrap().unwrap();
        timers.register_processing_time_timer(&timer.namespace, time + 10).unwrap();
        assert_eq!(timers.next_processing_time_timer(backend).unwrap(), None);
        assert_eq!(service.counts().1, 1);
    }
}

#[test]
fn test_current_processing_time() {
    let mut service = Service::new((0, 9, 10));
    service.timers.advance_processing_time(17);
    assert_eq!(service.timers.current_processing_time(), 17);
    service.timers.advance_processing_time(42);
    assert_eq!(service.timers.current_processing_time(), 42);
}

#[test]
fn test_current_event_time() {
    let mut service = Service::new((0, 9, 10));
    assert_eq!(service.timers.current_watermark(), i64::MIN);
    service.timers.advance_watermark(17);
    service.timers.advance_watermark(42);
    assert_eq!(service.timers.current_watermark(), 42);
}

#[test]
fn test_set_and_fire_event_time_timers() {
    for ranges in RANGES {
        let (mut service, [a, b]) = with_four(ranges);
        service.timers.advance_watermark(10);
        let all = pairs(&[(a, "hello"), (a, "ciao"), (b, "hello"), (b, "ciao")]);
        assert_eq!(service.fire(true), all, "each of them once");
        assert_eq!(service.counts(), (0, 4));
    }
}

#[test]
fn test_set_and_fire_processing_time_timers() {
    for ranges in RANGES {
        let (mut service, [a, b]) = with_four(ranges);
        service.timers.advance_processing_time(10);
        let all = pairs(&[(a, "hello"), (a, "ciao"), (b, "hello"), (b, "ciao")]);
        assert_eq!(service.fire(false), all, "each of them once");
        assert_eq!(service.counts(), (4, 0));
    }
}

#[test]
fn test_delete_event_time_timers() {
    for ranges in RANGES {
        let (mut service, [a, b]) = with_four(ranges);
        let [hello, ciao] = namespaces();
        service.set(a).delete_event_time_timer(&hello, 10).unwrap();
        service.set(b).delete_event_time_timer(&ciao, 10).unwrap();
        service.set(b).delete_event_time_timer(&ciao, 11).unwrap(); // there is none
        assert_eq!(service.counts(), (2, 4));
        service.timers.advance_watermark(10);
        assert_eq!(service.fire(true), pairs(&[(a, "ciao"), (b, "hello")]));
    }
}

#[test]
fn test_delete_processing_time_timers() {
    for ranges in RANGES {
        let (mut service, [a, b]) = with_four(ranges);
        let [hello, ciao] = namespaces();
        service.set(a).delete_processing_time_timer(&hello, 10).unwrap();
        service.set(b).delete_processing_time_timer(&ciao, 10).unwrap();
        assert_eq!(service.counts(), (4, 2));
        service.timers.advance_processing_time(10);
        assert_eq!(service.fire(false), pairs(&[(a, "ciao"), (b, "hello")]));
    }
}

fn for_each(event: bool) {
    let (mut service, [a, b]) = with_four((0, 9, 10));
    let queue = match event {
        true => service.timers.event_time(),
        false => service.timers.processing_time(),
    };
    let mut visited = Vec::new();
    for timer in queue.iter().unwrap() {
        let timer = timer.unwrap();
        service.backend.set_current_key(&timer.key).unwrap();
        visited.push((timer.key, timer.namespace));
    }
    visited.sort();
    assert_eq!(visited, pairs(&[(a, "hello"), (a, "ciao"), (b, "hello"), (b, "ciao")]));
}

#[test]
fn test_for_each_event_time_timers() {
    for_each(true);
}

#[test]
fn test_for_each_processing_time_timers() {
    for_each(false);
}

#[test]
fn test_snapshot_and_restore() {
    for ranges in RANGES {
        let (service, [a, b]) = with_four(ranges);
        let set = service.backend.checkpoint().unwrap().wait().unwrap();
        let backend = restore(&service.env, "restored", &set, service.options.clone());
        let mut restored = Service::of(service.env.clone(), service.options.clone(), backend);
        assert_eq!(restored.timers.current_watermark(), i64::MIN, "not part of the checkpoint");
        assert_eq!(restored.timers.next_processing_time().unwrap(), Some(10));
        let all = pairs(&[(a, "hello"), (a, "ciao"), (b, "hello"), (b, "ciao")]);
        restored.timers.advance_processing_time(10);
        assert_eq!(restored.fire(false), all);
        restored.timers.advance_watermark(10);
        assert_eq!(restored.fire(true), all);
    }
}

#[test]
fn test_snapshot_and_rebalancing_restore() {
    let mut service = Service::new((0, 127, 128));
    let middle = 64;
    let group = |key: &i32| assign_key_group(key.java_hash(), 128);
    let low = service.keys().find(|key| group(key) < middle).unwrap();
    let high = service.keys().find(|key| group(key) >= middle).unwrap();
    let [hello, ciao] = namespaces();
    for (key, namespace) in [(low, &hello), (high, &ciao)] {
        let timers = service.set(key);
        timers.register_event_time_timer(namespace, 10).unwrap();
        timers.register_processing_time_timer(namespace, 10).unwrap();
    }
    let set = service.backend.checkpoint().unwrap().wait().unwrap();
    let halves =
        [("low", range(0, middle - 1), (low, hello)), ("high", range(middle, 127), (high, ciao))];
    for (dir, groups, want) in halves {
        let options = backend_options(128, groups);
        let backend = restore(&service.env, dir, &set, options.clone());
        let mut half = Service::of(service.env.clone(), options, backend);
        half.timers.advance_watermark(10);
        half.timers.advance_processing_time(10);
        assert_eq!(half.fire(true), std::slice::from_ref(&want), "only its own");
        assert_eq!(half.fire(false), [want]);
    }
}

/// `StateBackendMigrationTestBase`: timers are never migrated, so whatever is not as it was is refused.
#[test]
fn test_priority_queue_state_creation_fails_if_new_serializer_is_not_compatible() {
    let mut service = Service::new((0, 9, 10));
    let [hello, _] = namespaces();
    let key = service.two_keys()[0];
    service.set(key).register_event_time_timer(&hello, 10).unwrap();
    let set = service.backend.checkpoint().unwrap().wait().unwrap();
    let options = service.options.clone();
    let mut restored: StateBackend<i32> = restore(&service.env, "restored", &set, options);
    for _ in 0..2 {
        let other = restored.timer_service::<u64>("timers");
        assert_eq!(other.err().map(|e| e.kind()), Some(ErrorKind::Incompatible));
    }
    let mut timers = restored.timer_service::<String>("timers").unwrap();
    assert_eq!(timers.event_time().peek().unwrap().map(|timer| timer.time), Some(10));
}
