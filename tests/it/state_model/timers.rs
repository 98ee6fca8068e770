//! The part of the model that has timers: of event time and of processing time, in two namespaces.

use std::collections::BTreeSet;

use alluvium::{JavaHash, KeyGroupRange, Timer, TimerIter, TimerService, assign_key_group};

use super::{GROUPS, Program, all};

/// Time, key and namespace, in the order of firing: parts of variable width come by length first.
pub type Entry = (i64, (usize, String), (usize, String));

#[derive(Clone, Default)]
pub struct Oracle {
    event: BTreeSet<Entry>,
    processing: BTreeSet<Entry>,
}

pub type Handles = TimerService<String, String>;

fn entry(time: i64, key: &str, namespace: &str) -> Entry {
    (time, (key.len(), key.to_owned()), (namespace.len(), namespace.to_owned()))
}

fn of(timer: Timer<String, String>) -> Entry {
    entry(timer.time, &timer.key, &timer.namespace)
}

fn within(all: &BTreeSet<Entry>, groups: KeyGroupRange) -> BTreeSet<Entry> {
    let group = |entry: &&Entry| groups.contains(assign_key_group(entry.1.1.java_hash(), GROUPS));
    all.iter().filter(group).cloned().collect()
}

impl Oracle {
    /// Compares the timers of these key groups.
    pub fn check(
        &self,
        groups: KeyGroupRange,
        event: TimerIter<String, String>,
        processing: TimerIter<String, String>,
    ) {
        for (iter, all_timers) in [(event, &self.event), (processing, &self.processing)] {
            let got: BTreeSet<Entry> = all(iter).into_iter().map(of).collect();
            assert_eq!(got, within(all_timers, groups));
        }
    }
}

impl Program {
    pub fn change_timers(&mut self, what: u8, key: String, namespace: String, n: u16) {
        let time = i64::from(n % 512) - 100;
        let event = !n.is_multiple_of(5);
        let timers = &mut self.at(&key).timers;
        match (what, event) {
            (0, true) => timers.delete_event_time_timer(&namespace, time).unwrap(),
            (0, false) => timers.delete_processing_time_timer(&namespace, time).unwrap(),
            (_, true) => timers.register_event_time_timer(&namespace, time).unwrap(),
            (_, false) => timers.register_processing_time_timer(&namespace, time).unwrap(),
        }
        let oracle = &mut self.oracle.timers;
        let of_kind = if event { &mut oracle.event } else { &mut oracle.processing };
        let entry = entry(time, &key, &namespace);
        match what {
            0 => drop(of_kind.remove(&entry)),
            _ => drop(of_kind.insert(entry)),
        }
    }

    /// Fires what is due of one instance. Each timer counts, under its key, and some register others.
    pub fn fire(&mut self, n: u16) {
        let index = usize::from(n) % self.instances.len();
        let (now, event) = (i64::from(n % 700) - 100, !n.is_multiple_of(5));
        let instance = &mut self.instances[index];
        let groups = instance.options.key_groups;
        let timers = &mut instance.timers;
        let backend = instance.backend.as_mut().expect("it is open");
        timers.advance_watermark(now);
        timers.advance_processing_time(now);
        loop {
            let oracle = &mut self.oracle.timers;
            let of_kind = if event { &mut oracle.event } else { &mut oracle.processing };
            let first = within(of_kind, groups).first().filter(|first| first.0 <= now).cloned();
            let fired = match event {
                true => timers.next_event_time_timer(backend).unwrap(),
                false => timers.next_processing_time_timer(backend).unwrap(),
            };
            assert_eq!(fired.clone().map(of), first, "the first that is due");
            let Some(fired) = fired else { return };
            of_kind.remove(&of(fired.clone()));
            instance.states.count.update_with(|count| Some(count.unwrap_or(0) + 1)).unwrap();
            *self.oracle.count.entry(fired.key.clone()).or_default() += 1;
            if event && fired.time % 8 == 3 {
                let next = fired.time + 4; // may be due at once, and registers none
                timers.register_event_time_timer(&fired.namespace, next).unwrap();
                of_kind.insert(entry(next, &fired.key, &fired.namespace));
            }
        }
    }
}
