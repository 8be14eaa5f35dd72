//! Times as the server and `to_jsonb` write them.

/// `2026-11-21T12:12:57.699023Z` and nothing else.
pub fn server_time(text: &[u8]) -> Option<i64> {
    let text: &[u8; 27] = text.try_into().ok()?;
    if [text[4], text[7], text[10], text[13], text[16], text[19], text[26]] != *b"--T::.Z" {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let date = [number(0, 4)?, number(5, 7)?, number(8, 10)?];
    i64::try_from(micros_of(date, [number(11, 13)?, number(14, 16)?, number(17, 19)?], number(20, 26)?)?).ok()
}

/// A time with an offset, as `to_jsonb` writes it in any time zone: `12026-11-21T12:12:57.69+05:30`, `0044-03-15T00:00:00+00:00 BC`.
pub fn unix_micros(text: &str) -> Option<i128> {
    let number = |text: &str, length: std::ops::RangeInclusive<usize>| -> Option<i64> {
        let digits = length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse().ok() } else { None }
    };
    let (text, before_christ) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (date, time) = text.split_once('T')?;
    let (clock, offset) = match time.strip_suffix('Z') {
        Some(clock) => (clock, None),
        None => time.find(['+', '-']).map(|at| time.split_at(at)).map(|(clock, offset)| (clock, Some(offset)))?,
    };
    let three = |text: &str, first: std::ops::RangeInclusive<usize>, by: char| -> Option<[i64; 3]> {
        let mut parts = text.split(by);
        let all = [number(parts.next()?, first)?, number(parts.next()?, 2..=2)?, number(parts.next()?, 2..=2)?];
        parts.next().is_none().then_some(all)
    };
    let mut date = three(date, 4..=6, '-')?;
    if before_christ {
        // The year before 1 is 1 BC.
        date[0] = 1 - Some(date[0]).filter(|year| *year > 0)?;
    }
    let (clock, micros) = match clock.split_once('.') {
        Some((clock, digits)) => (clock, number(digits, 1..=6)? * 10i64.pow(6 - digits.len() as u32)),
        None => (clock, 0),
    };
    let seconds = match offset {
        None => 0,
        Some(offset) => {
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            let mut parts = offset[1..].split(':').map(|part| number(part, 2..=2).filter(|n| *n < 60));
            let hours = parts.next()??;
            let (minutes, rest) = (parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
            parts.next().is_none().then_some(sign * (hours * 3600 + minutes * 60 + rest))?
        }
    };
    Some(micros_of(date, three(clock, 2..=2, ':')?, micros)? - i128::from(seconds) * 1_000_000)
}

/// Microseconds since 1970 of a date and a time in the Gregorian calendar.
fn micros_of([year, month, day]: [i64; 3], [hour, minute, second]: [i64; 3], micros: i64) -> Option<i128> {
    let leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970-01-01 of a year that begins in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 719_469;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(i128::from(seconds) * 1_000_000 + i128::from(micros))
}

/// As the export writes times: `2026-11-21T12:12:57.699023Z`.
pub fn utc(micros: i64) -> String {
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    // Years of 400 begin in March of a year that is a multiple of it.
    let (era, day) = ((days + 719_468).div_euclid(146_097), (days + 719_468).rem_euclid(146_097));
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (year, end) = if year > 0 { (year, "Z") } else { (1 - year, "Z BC") };
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}{end}")
}

/// The first and the last time of some records.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub first: i64,
    pub last: i64,
}

impl Span {
    pub fn of(micros: i64) -> Span {
        Span { first: micros, last: micros }
    }

    pub fn join(one: Option<Span>, other: Option<Span>) -> Option<Span> {
        match (one, other) {
            (Some(a), Some(b)) => Some(Span { first: a.first.min(b.first), last: a.last.max(b.last) }),
            (one, other) => one.or(other),
        }
    }

    /// Of the report's table.
    pub fn line(self) -> (&'static str, String) {
        ("time span", format!("{} to {}", utc(self.first), utc(self.last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_in_any_zone() {
        for (text, micros) in [
            ("1970-01-01T00:00:00+00:00", 0),
            ("2000-02-29T23:59:59.5+00:00", 951_868_799_500_000),
            ("2026-11-21T12:12:57.699023+00:00", 1_795_263_177_699_023),
            ("2026-11-21T17:42:57.699023+05:30", 1_795_263_177_699_023),
            ("1969-12-31T16:00:00-08:00", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            // As PostgreSQL counts: extract(epoch FROM ...).
            ("294276-12-31T23:59:59.999999+00:00", 9_224_318_015_999_999_999i128),
            ("0001-01-01T00:00:00+00:00", -62_135_596_800_000_000),
            ("0001-12-31T23:59:59+00:00 BC", -62_135_596_801_000_000),
            ("4714-11-24T00:00:00+00:00 BC", -210_866_803_200_000_000),
            ("1900-01-01T00:00:00+00:19:32", -2_208_989_972_000_000),
        ] {
            assert_eq!(unix_micros(text), Some(micros), "{text}");
            if let Ok(micros) = i64::try_from(micros) {
                assert_eq!(unix_micros(&utc(micros)), Some(i128::from(micros)), "{}", utc(micros));
            }
        }
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T12:12",
            "2026-13-01T00:00:00Z",
            "infinity",
            "2026-11-21T12:12:57.6990231Z",
            "2016-12-31T23:59:60Z",
            "2026-11-21T12:12:57",
            "2026-11-21T12:12:57+5",
            "2026-11-21T12:12:57+05:30:00:00",
            "2026-11-21T12:12:57.Z",
            "0000-01-01T00:00:00Z BC",
            "026-11-21T12:12:57Z",
            "2026-11-21T12:12:57+05:60",
            "2026-11-21T12:12:57+",
            "2026-02-29T12:12:57Z",
            "-2026-11-21T12:12:57Z",
        ] {
            assert_eq!(unix_micros(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn times_are_printed_as_the_server_does(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let other = chrono::DateTime::from_timestamp_micros(micros).unwrap();
            prop_assert_eq!(utc(micros), other.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
        }
    }
}
