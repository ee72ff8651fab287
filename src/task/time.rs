//! Times: RFC 3339 text and milliseconds since 1970.
//!
//! Written in one fixed form, `2026-01-01T10:00:00.000Z`. Read with any offset; without one (as
//! Python's `isoformat()` of a naive time) as UTC; a date alone is its midnight.

/// 0001-01-01T00:00:00.000Z, the earliest time that is taken.
pub const TIME_MIN_MS: i64 = -62_135_596_800_000;
/// 9999-12-31T23:59:59.999Z, the latest time that is taken.
pub const TIME_MAX_MS: i64 = 253_402_300_799_999;

const DAY_MS: i64 = 86_400_000;
/// Days from 0000-03-01, where the calendar below begins, to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;
/// Days in 400 years.
const DAYS_PER_ERA: i64 = 146_097;

/// Milliseconds since 1970 of a time as text; `None` if it is no time, or outside the bounds.
/// Digits below the millisecond are cut off. A leap second counts as the second before it.
pub fn parse(text: &str) -> Option<i64> {
    let mut rest = Digits(text.as_bytes());
    let (year, month, day) = (rest.number(4)?, rest.after(b"-")?, rest.after(b"-")?);
    if year < 1 || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let midnight_ms = days_from_civil(year, month, day) * DAY_MS;
    let ms = if rest.0.is_empty() { midnight_ms } else { midnight_ms + rest.time_of_day()? };
    (TIME_MIN_MS..=TIME_MAX_MS).contains(&ms).then_some(ms)
}

/// Appends the time as text. A time outside the bounds is written as the nearest bound.
pub fn write(ms: i64, out: &mut Vec<u8>) {
    let ms = ms.clamp(TIME_MIN_MS, TIME_MAX_MS);
    let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text[0..4], year);
    put(&mut text[5..7], month);
    put(&mut text[8..10], day);
    put(&mut text[11..13], of_day / 3_600_000);
    put(&mut text[14..16], of_day / 60_000 % 60);
    put(&mut text[17..19], of_day / 1_000 % 60);
    put(&mut text[20..23], of_day % 1_000);
    out.extend_from_slice(&text);
}

/// The time as text; see [`write()`].
pub fn to_text(ms: i64) -> String {
    let mut out = Vec::with_capacity(24);
    write(ms, &mut out);
    String::from_utf8(out).expect("ASCII was written")
}

/// Writes a number into the whole width of `digits`.
fn put(digits: &mut [u8], mut number: i64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

/// What is left of the text.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    /// A number of exactly `width` digits.
    fn number(&mut self, width: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(width)?;
        self.0 = rest;
        digits.iter().try_fold(0, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'))
        })
    }

    /// Two digits behind one of `marks`.
    fn after(&mut self, marks: &[u8]) -> Option<i64> {
        self.take(marks)?;
        self.number(2)
    }

    /// One byte of `marks`.
    fn take(&mut self, marks: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first().filter(|(first, _)| marks.contains(first))?;
        self.0 = rest;
        Some(*first)
    }

    /// From the `T` to the end of the text, in UTC; may lie outside the day.
    fn time_of_day(&mut self) -> Option<i64> {
        let (hour, minute) = (self.after(b"Tt ")?, self.after(b":")?);
        let second = if self.0.first() == Some(&b':') { self.after(b":")? } else { 0 };
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let fraction_ms = if self.take(b".,").is_some() { self.fraction_ms()? } else { 0 };
        let offset_ms = self.offset_ms()?;
        Some(((hour * 60 + minute) * 60 + second.min(59)) * 1_000 + fraction_ms - offset_ms)
    }

    fn fraction_ms(&mut self) -> Option<i64> {
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (fraction, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        let padded = fraction.iter().copied().chain([b'0'; 3]).take(3);
        (digits > 0).then(|| padded.fold(0, |ms, byte| ms * 10 + i64::from(byte - b'0')))
    }

    /// The offset from UTC that ends the text; none is 0.
    fn offset_ms(&mut self) -> Option<i64> {
        let sign = match self.take(b"Zz+-") {
            None | Some(b'Z' | b'z') => return self.0.is_empty().then_some(0),
            Some(b'+') => 1,
            Some(_) => -1,
        };
        let (hours, minutes) = (self.number(2)?, self.after(b":")?);
        (self.0.is_empty() && hours <= 23 && minutes <= 59)
            .then(|| sign * (hours * 60 + minutes) * 60_000)
    }
}

fn days_of(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date. The year is counted from March, so that the leap day is its last.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * DAYS_PER_ERA + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - DAYS_TO_1970
}

/// The date of a day since 1970; the inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    let (era, day) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(parse(text).map(to_text).as_deref(), expected, "{text}");
    }

    #[test]
    fn every_form_that_people_send_is_read() {
        check("2026-01-01T10:00:00Z", Some("2026-01-01T10:00:00.000Z"));
        check("2026-01-01t10:00:00.123456z", Some("2026-01-01T10:00:00.123Z"));
        check("2026-01-01 10:00:00.1+02:30", Some("2026-01-01T07:30:00.100Z"));
        check("2026-01-01T23:30:00-01:00", Some("2026-01-02T00:30:00.000Z"));
        check("2026-01-01T10:00:00.123456", Some("2026-01-01T10:00:00.123Z"));
        check("2026-01-01T10:00", Some("2026-01-01T10:00:00.000Z"));
        check("2024-02-29", Some("2024-02-29T00:00:00.000Z"));
        check("2016-12-31T23:59:60Z", Some("2016-12-31T23:59:59.000Z"));
        check("1969-12-31T23:59:59.999Z", Some("1969-12-31T23:59:59.999Z"));
        check("0001-01-01", Some("0001-01-01T00:00:00.000Z"));
        check("9999-12-31T23:59:59.999999Z", Some("9999-12-31T23:59:59.999Z"));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "now",
            "2026",
            "2026-1-1",
            "2026-13-01",
            "2026-00-10",
            "2026-02-29",
            "2026-01-32",
            "0000-01-01",
            "2026-01-01T",
            "2026-01-01T24:00:00Z",
            "2026-01-01T10:60:00Z",
            "2026-01-01T10:00:61Z",
            "2026-01-01T10:00:00.Z",
            "2026-01-01T10:00:00+2",
            "2026-01-01T10:00:00+24:00",
            "2026-01-01T10:00:00Zx",
            "2026-01-01Z",
            "+2026-01-01",
            "2026-01-01T10:00:00Z ",
            "\u{661}026-01-01",
            "9999-12-31T23:59:59-01:00",
            "0001-01-01T00:00:00+01:00",
            "1767261600",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn text_is_as_an_independent_library_reads_it(ms in TIME_MIN_MS..253_402_207_200_000_i64) {
            let text = to_text(ms);
            let other: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(other.as_millisecond(), ms);
            prop_assert_eq!(parse(&text), Some(ms));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
