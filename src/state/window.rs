//! Time windows: namespaces of windowed state.

use crate::base::coding::Decoder;
use crate::base::error::Result;
use crate::state::serializer::Builtin;
use crate::state::serializer::Serializer;

/// From `start` on, up to `end` without it: Flink's `TimeWindow`, in the unit of event time,
/// milliseconds as a rule. As a namespace, it gives each window state of its own.
///
/// Ordered by start, then by end. Serialized as in Flink: both times in 8 bytes, big-endian, two's
/// complement; so windows before 1970 are *visited* after those from 1970 on, where they are keys of a
/// map. A window may be empty (`start == end`) or turned round; nothing here minds.
///
/// ```
/// use alluvium::TimeWindow;
///
/// let (gap, first, next) = (3_000, 10_000, 12_000);
/// let (a, b) = (TimeWindow::new(first, first + gap), TimeWindow::new(next, next + gap));
/// assert!(a.intersects(&b));
/// let session = a.cover(&b);
/// assert_eq!(session, TimeWindow::new(10_000, 15_000));
/// assert_eq!(session.max_timestamp(), 14_999); // when its timer fires
/// assert_eq!(TimeWindow::around(12_345, 0, 5_000), TimeWindow::new(10_000, 15_000));
/// ```
///
/// | Flink | alluvium |
/// |---|---|
/// | `getStart`, `getEnd` | the fields |
/// | `maxTimestamp`, `intersects`, `cover` | the same, in snake case |
/// | `getWindowStartWithOffset` | [`around`](TimeWindow::around) |
/// | `GlobalWindow` | `()`: no bytes |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeWindow {
    /// The first time in it.
    pub start: i64,
    /// The first time behind it.
    pub end: i64,
}

impl TimeWindow {
    /// From `start` on, up to `end` without it.
    pub fn new(start: i64, end: i64) -> TimeWindow {
        TimeWindow { start, end }
    }

    /// The window of this size around a time, if windows of this size follow one another and one begins
    /// at `offset`: how elements are assigned to tumbling windows. Times wrap around at the ends of
    /// `i64`, as in Flink.
    ///
    /// # Panics
    /// If `size` is not positive.
    pub fn around(time: i64, offset: i64, size: i64) -> TimeWindow {
        assert!(size > 0, "a window has a size");
        let start = time.wrapping_sub(time.wrapping_sub(offset).rem_euclid(size));
        TimeWindow { start, end: start.wrapping_add(size) }
    }

    /// The last time that belongs to it, when its timer of event time fires: one before the end.
    pub fn max_timestamp(&self) -> i64 {
        self.end.wrapping_sub(1)
    }

    /// Do they have a time in common, or follow one another without a gap? Such are merged where
    /// windows merge.
    pub fn intersects(&self, other: &TimeWindow) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// The smallest window that holds both.
    pub fn cover(&self, other: &TimeWindow) -> TimeWindow {
        TimeWindow { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// The serializer of [`TimeWindow`], Flink's bytes: start and end, 8 bytes each, big-endian.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeWindowSerializer;

impl Serializer for TimeWindowSerializer {
    type Value = TimeWindow;

    fn name(&self) -> &str {
        "time-window"
    }

    fn fixed_len(&self) -> Option<usize> {
        Some(16)
    }

    #[inline]
    fn encode(&self, window: &TimeWindow, out: &mut Vec<u8>) {
        out.extend_from_slice(&window.start.to_be_bytes());
        out.extend_from_slice(&window.end.to_be_bytes());
    }

    #[inline]
    fn decode(&self, bytes: &[u8]) -> Result<TimeWindow> {
        let mut d = Decoder::new(bytes);
        let (start, end) = (i64::from_be_bytes(d.fixed()?), i64::from_be_bytes(d.fixed()?));
        d.finish()?;
        Ok(TimeWindow { start, end })
    }
}

impl Builtin for TimeWindow {
    type Serializer = TimeWindowSerializer;
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn bytes(window: TimeWindow) -> Vec<u8> {
        let mut out = Vec::new();
        TimeWindowSerializer.encode(&window, &mut out);
        out
    }

    quickcheck! {
        fn what_was_encoded_decodes(start: i64, end: i64) -> bool {
            let window = TimeWindow::new(start, end);
            TimeWindowSerializer.decode(&bytes(window)).unwrap() == window
        }

        fn only_sixteen_bytes_decode(any: Vec<u8>) -> bool {
            match TimeWindowSerializer.decode(&any) {
                Ok(window) => bytes(window) == any,
                Err(_) => any.len() != 16,
            }
        }

        fn the_window_around_a_time_holds_it(time: i32, offset: i32, size: u16) -> bool {
            let (time, offset, size) = (time.into(), offset.into(), i64::from(size) + 1);
            let window = TimeWindow::around(time, offset, size);
            window.start <= time && time <= window.max_timestamp()
                && window.end - window.start == size
                && (window.start - offset) % size == 0
        }

        fn those_that_intersect_cover_what_they_hold(a: (i8, u8), b: (i8, u8)) -> bool {
            let window = |(start, len): (i8, u8)| {
                TimeWindow::new(start.into(), i64::from(start) + i64::from(len))
            };
            let (a, b) = (window(a), window(b));
            let holds = |w: TimeWindow, t: i64| w.start <= t && t < w.end;
            let cover = a.cover(&b);
            let gapless = (cover.start..cover.end).all(|t| holds(a, t) || holds(b, t));
            let touch = a.intersects(&b);
            let empty = a.start == a.end || b.start == b.end;
            touch == b.intersects(&a) && (touch == gapless || empty)
                && [a, b].iter().all(|w| cover.start <= w.start && w.end <= cover.end)
        }
    }

    /// As Flink's `TimeWindow.Serializer` writes them.
    #[test]
    fn pinned() {
        let hex = |window| bytes(window).iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(TimeWindow::new(0, 5000)), "00000000000000000000000000001388");
        assert_eq!(hex(TimeWindow::new(1000, 2000)), "00000000000003e800000000000007d0");
        assert_eq!(hex(TimeWindow::new(-1, 0)), "ffffffffffffffff0000000000000000");
    }

    #[test]
    fn starts_as_in_flink() {
        // TimeWindowTest: sizes of 7, with offsets.
        for (time, offset, start) in [
            (1, 0, 0),
            (6, 0, 0),
            (7, 0, 7),
            (8, 0, 7),
            (1, 3, -4),
            (2, 3, -4),
            (3, 3, 3),
            (9, 3, 3),
            (10, 3, 10),
            (1, -2, -2),
            (-2, -2, -2),
            (3, -2, -2),
            (4, -2, -2),
            (7, -2, 5),
            (12, -2, 12),
            (-12, 0, -14),
        ] {
            assert_eq!(TimeWindow::around(time, offset, 7).start, start, "{time} {offset}");
        }
    }

    #[test]
    fn ends() {
        let window = TimeWindow::new(3, 8);
        assert_eq!(window.max_timestamp(), 7);
        assert!(window.intersects(&TimeWindow::new(8, 9)), "they follow one another");
        assert!(!window.intersects(&TimeWindow::new(9, 10)));
        assert!(TimeWindow::new(1, 9) < TimeWindow::new(2, 3));
    }
}
