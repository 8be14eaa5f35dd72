//! Which transactions had ended at a moment.

use crate::error::{Code, Fault};

/// A `pg_snapshot`: 64-bit ids, top level only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Every id from here on had not ended.
    pub xmax: i64,
    /// Ids below `xmax` that had not ended, ascending.
    pub in_progress: Vec<i64>,
}

impl Snapshot {
    pub fn empty() -> Self {
        Snapshot { xmax: 1, in_progress: Vec::new() }
    }

    /// Reads the text of a `pg_snapshot`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let bad = || Fault::new(Code::DataCorrupted, format!("invalid snapshot: \"{}\"", crate::error::shorten(text)));
        let (_, rest) = text.split_once(':').ok_or_else(bad)?;
        let (xmax, list) = rest.split_once(':').ok_or_else(bad)?;
        let in_progress: Vec<i64> =
            list.split(',').filter(|id| !id.is_empty()).map(str::parse).collect::<Result<_, _>>().map_err(|_| bad())?;
        // `sees` searches the list.
        if !in_progress.is_sorted() {
            return Err(bad());
        }
        Ok(Snapshot { xmax: xmax.parse().map_err(|_| bad())?, in_progress })
    }

    /// Counts the transaction as not ended. The server leaves out the caller's own, which may yet write records or be
    /// rolled back.
    pub fn without(mut self, own: Option<i64>) -> Self {
        if let Some(own) = own.filter(|own| *own < self.xmax)
            && let Err(at) = self.in_progress.binary_search(&own)
        {
            self.in_progress.insert(at, own);
        }
        self
    }

    /// Whether the transaction had ended.
    pub fn sees(&self, transaction: i64) -> bool {
        transaction < self.xmax && self.in_progress.binary_search(&transaction).is_err()
    }

    /// The text of a `pg_snapshot`.
    pub fn text(&self) -> String {
        let list: Vec<String> = self.in_progress.iter().map(i64::to_string).collect();
        format!("{}:{}:{}", self.in_progress.first().unwrap_or(&self.xmax), self.xmax, list.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_the_server_writes() {
        let snapshot = Snapshot::parse("10:20:10,14,15").unwrap();
        assert_eq!(snapshot, Snapshot { xmax: 20, in_progress: vec![10, 14, 15] });
        assert_eq!(snapshot.text(), "10:20:10,14,15");
        assert_eq!(Snapshot::parse("20:20:").unwrap().text(), "20:20:");
        assert_eq!([9, 10, 13, 14, 19, 20].map(|id| snapshot.sees(id)), [true, false, true, false, true, false]);
        for bad in ["", "1", "1:2", "a:b:c", "1:2:x", "1:9:5,3"] {
            assert_eq!(Snapshot::parse(bad).unwrap_err().code, Code::DataCorrupted, "{bad}");
        }
        assert!(!Snapshot::empty().sees(1) && !Snapshot::empty().sees(i64::MAX));
    }

    #[test]
    fn the_callers_own_transaction_has_not_ended() {
        let snapshot = Snapshot::parse("10:20:10,15").unwrap();
        assert!(snapshot.sees(12) && !snapshot.clone().without(Some(12)).sees(12));
        for own in [None, Some(10), Some(20), Some(25)] {
            assert_eq!(snapshot.clone().without(own), snapshot);
        }
    }

    proptest! {
        #[test]
        fn text_and_back(ids in prop::collection::btree_set(1i64..1000, 0..20), xmax in 1000i64..2000, own in 1i64..3000) {
            let snapshot = Snapshot { xmax, in_progress: ids.iter().copied().collect() };
            prop_assert_eq!(Snapshot::parse(&snapshot.text()).unwrap(), snapshot.clone());
            for id in 0..2000 {
                prop_assert_eq!(snapshot.sees(id), id < xmax && !ids.contains(&id));
            }
            let with_own = snapshot.clone().without(Some(own));
            prop_assert!(!with_own.sees(own) && with_own.in_progress.is_sorted());
        }
    }
}
