//! One row of the table and what it says: parsing, and the event's own time.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The first line of the table.
pub const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,\
sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";

/// Longest row in bytes; the table's own have about 100.
pub const ROW_BYTES_MAX: usize = 512;

/// Longest code of a carrier, aircraft or airport in bytes.
const CODE_BYTES_MAX: usize = 8;

/// A scheduled flight. It departed if it has a departure delay, and came as planned if it has an
/// arrival delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Event time: the scheduled departure, in seconds since 1970, UTC.
    pub time: i64,
    /// The day of the scheduled departure in the airport's own calendar, in days since 1970.
    pub day: i32,
    /// Its minute of that day.
    pub minute: u16,
    /// Minutes; negative if it left early.
    pub departure_delay: Option<i16>,
    /// Minutes; negative if it came early.
    pub arrival_delay: Option<i16>,
    pub carrier: &'a str,
    pub flight: u16,
    /// The tail number, if it is known.
    pub aircraft: Option<&'a str>,
    pub origin: &'a str,
    pub destination: &'a str,
}

/// Why a row is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRow {
    pub column: &'static str,
    pub problem: &'static str,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.column, self.problem)
    }
}

impl<'a> Event<'a> {
    /// The event in a row of the table, which is given without its line end.
    ///
    /// Fields that this job does not use may hold anything. No field contains quotes or commas.
    pub fn parse(row: &'a [u8]) -> Result<Event<'a>, BadRow> {
        if row.len() > ROW_BYTES_MAX {
            return Err(bad("row", "too long"));
        }
        let row = std::str::from_utf8(row).map_err(|_| bad("row", "not UTF-8"))?;
        let fields = split(row).ok_or(bad("row", "not 19 fields"))?;
        let [year, month, day, departed, _, departure_delay, _, _, arrival_delay, ..] = fields;
        let [.., carrier, flight, aircraft, origin, destination, _, _, hour, minute, time] = fields;

        let year: i32 = needed("year", number("year", year, 1900..=2200)?)?;
        let month = needed("month", number("month", month, 1..=12)?)?;
        let day = needed("day", number("day", day, 1..=31)?)?;
        let day = days_from_civil(year, month, day).ok_or(bad("day", "no such day"))?;
        let hour: u16 = needed("hour", number("hour", hour, 0..=23)?)?;
        let minute: u16 = needed("minute", number("minute", minute, 0..=59)?)?;
        let time = parse_time(time).ok_or(bad("time_hour", "no time"))?;

        // A flight that was cancelled never departed, whatever the other fields say.
        let departed: Option<u16> = number("dep_time", departed, 0..=2400)?;
        let departure_delay = number("dep_delay", departure_delay, i16::MIN..=i16::MAX)?;
        Ok(Event {
            time: time + i64::from(minute) * 60,
            day,
            minute: hour * 60 + minute,
            departure_delay: departed.and(departure_delay),
            arrival_delay: number("arr_delay", arrival_delay, i16::MIN..=i16::MAX)?,
            carrier: needed("carrier", code("carrier", carrier)?)?,
            flight: needed("flight", number("flight", flight, 1..=u16::MAX)?)?,
            aircraft: code("tailnum", aircraft)?,
            origin: needed("origin", code("origin", origin)?)?,
            destination: needed("dest", code("dest", destination)?)?,
        })
    }
}

fn bad(column: &'static str, problem: &'static str) -> BadRow {
    BadRow { column, problem }
}

fn split(row: &str) -> Option<[&str; 19]> {
    let mut fields = [""; 19];
    let mut rest = row.split(',');
    for field in &mut fields {
        *field = rest.next()?;
    }
    rest.next().is_none().then_some(fields)
}

/// A field that is not missing.
fn present(field: &str) -> Option<&str> {
    (!matches!(field, "" | "NA")).then_some(field)
}

fn needed<T>(column: &'static str, value: Option<T>) -> Result<T, BadRow> {
    value.ok_or(bad(column, "missing"))
}

/// A number, or `None` if it is missing.
fn number<T: FromStr + PartialOrd>(
    column: &'static str,
    field: &str,
    range: RangeInclusive<T>,
) -> Result<Option<T>, BadRow> {
    let Some(field) = present(field) else { return Ok(None) };
    let value = field.parse().map_err(|_| bad(column, "no number"))?;
    if range.contains(&value) { Ok(Some(value)) } else { Err(bad(column, "out of range")) }
}

/// A short word of letters and digits, or `None` if it is missing.
fn code<'a>(column: &'static str, field: &'a str) -> Result<Option<&'a str>, BadRow> {
    let Some(field) = present(field) else { return Ok(None) };
    if field.len() <= CODE_BYTES_MAX && field.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(Some(field));
    }
    Err(bad(column, "no code"))
}

/// Seconds since 1970 of a time such as `2013-01-01T10:00:00Z`.
fn parse_time(text: &str) -> Option<i64> {
    let shape = |(i, byte): (usize, u8)| match i {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        19 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    if text.len() != 20 || !text.bytes().enumerate().all(shape) {
        return None;
    }
    let part = |from: usize, to: usize| text[from..to].parse::<u32>().ok();
    let days = days_from_civil(part(0, 4)? as i32, part(5, 7)?, part(8, 10)?)?;
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(i64::from(days) * 86_400 + i64::from(hour * 3600 + minute * 60 + second))
}

/// Days since 1970 of a date of the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is a year's last.
fn days_from_civil(year: i32, month: u32, day: u32) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year as i32;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The date of a day since 1970, as `2013-01-31`.
pub fn date(day: i32) -> String {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i32::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A time since 1970, as `2013-01-31 17:05`.
pub fn date_and_time(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    format!("{} {:02}:{:02}", date(day as i32), second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,\
2013-01-01T10:00:00Z";

    #[test]
    fn a_row_is_an_event() {
        let event = Event::parse(ROW.as_bytes()).unwrap();
        let wanted = Event {
            time: 1_357_035_300,
            day: 15_706,
            minute: 315,
            departure_delay: Some(2),
            arrival_delay: Some(11),
            carrier: "UA",
            flight: 1545,
            aircraft: Some("N14228"),
            origin: "EWR",
            destination: "IAH",
        };
        assert_eq!(event, wanted);
        assert_eq!(date_and_time(event.time), "2013-01-01 10:15");
    }

    #[test]
    fn fields_may_be_missing() {
        let row = ROW.replace(",517,", ",NA,").replace(",11,", ",,").replace("N14228", "NA");
        let event = Event::parse(row.as_bytes()).unwrap();
        assert_eq!((event.departure_delay, event.arrival_delay), (None, None));
        assert_eq!(event.aircraft, None);
    }

    #[test]
    fn bad_rows_are_told_apart() {
        let problem = |row: &str| Event::parse(row.as_bytes()).unwrap_err().to_string();
        assert_eq!(problem(""), "row: not 19 fields");
        assert_eq!(problem(&format!("{ROW},")), "row: not 19 fields");
        assert_eq!(problem(&ROW.replace(",UA,", ",NA,")), "carrier: missing");
        assert_eq!(problem(&ROW.replace(",UA,", ",U\"A,")), "carrier: no code");
        assert_eq!(problem(&ROW.replace(",11,", ",1x,")), "arr_delay: no number");
        assert_eq!(problem(&ROW.replace(",11,", ",99999,")), "arr_delay: no number");
        assert_eq!(problem(&ROW.replace("2013,1,1", "2013,2,29")), "day: no such day");
        assert_eq!(problem(&ROW.replace("T10", "T24")), "time_hour: no time");
        assert_eq!(problem(&ROW.replace("IAH", "Ä")), "dest: no code");
        assert_eq!(problem(&"9".repeat(ROW_BYTES_MAX + 1)), "row: too long");
        assert_eq!(Event::parse(b"\xff").unwrap_err().to_string(), "row: not UTF-8");
        for cut in 0..ROW.len() {
            assert!(Event::parse(&ROW.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn days_and_dates_are_inverse() {
        assert_eq!(days_from_civil(1970, 1, 1), Some(0));
        assert_eq!(days_from_civil(2000, 2, 29), Some(11_016));
        assert_eq!(days_from_civil(1900, 2, 29), None);
        let mut next = days_from_civil(1899, 12, 31).unwrap();
        for (year, month) in (1900..2201).flat_map(|year| (1..13).map(move |month| (year, month))) {
            for day in 1..=31 {
                if let Some(days) = days_from_civil(year, month, day) {
                    next += 1;
                    assert_eq!(days, next);
                    assert_eq!(date(days), format!("{year:04}-{month:02}-{day:02}"));
                }
            }
        }
    }
}
