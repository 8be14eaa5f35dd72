//! Sequences of segments with wildcards, as sets.

use std::borrow::Cow;

use super::malformed::Malformed;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    Literal(Cow<'a, str>),
    One,
}

impl Segment<'_> {
    fn meets(&self, other: &Segment<'_>) -> bool {
        match (self, other) {
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            _ => true,
        }
    }

    fn covers(&self, other: &Segment<'_>) -> bool {
        match (self, other) {
            (Segment::One, _) => true,
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            (Segment::Literal(_), Segment::One) => false,
        }
    }
}

/// Segments, and whether any number of others may stand before and after them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Segments<'a> {
    pub(super) lead: bool,
    pub(super) head: Vec<Segment<'a>>,
    pub(super) any: bool,
}

impl<'a> Segments<'a> {
    pub(super) fn into_owned(self) -> Segments<'static> {
        self.map(|text| text.into_owned().into())
    }

    /// With another text for each literal.
    pub(super) fn map<'b>(self, mut text: impl FnMut(Cow<'a, str>) -> Cow<'b, str>) -> Segments<'b> {
        let map = |segment| match segment {
            Segment::Literal(literal) => Segment::Literal(text(literal)),
            Segment::One => Segment::One,
        };
        Segments { lead: self.lead, head: self.head.into_iter().map(map).collect(), any: self.any }
    }

    pub(super) fn parse(parts: impl Iterator<Item = &'a str>) -> Result<Self, Malformed> {
        let mut segments = Segments::new();
        for part in parts {
            segments.push(part)?;
        }
        Ok(segments)
    }

    /// None yet.
    pub(super) fn new() -> Self {
        Segments { lead: false, head: Vec::with_capacity(6), any: false }
    }

    /// Adds what stands behind them.
    pub(super) fn push(&mut self, part: &'a str) -> Result<(), Malformed> {
        if self.any {
            return Err(Malformed::WildcardPlace);
        }
        match part {
            "" => return Err(Malformed::ScopeSegment),
            "**" => self.any = true,
            "*" => self.head.push(Segment::One),
            _ if part.contains('*') => return Err(Malformed::WildcardPlace),
            _ => self.head.push(Segment::Literal(part.into())),
        }
        Ok(())
    }

    /// Every sequence that `other` matches is matched by `self`.
    pub(super) fn covers(&self, other: &Segments<'_>) -> bool {
        let Some(spare) = other.head.len().checked_sub(self.head.len()) else { return false };
        if (other.lead && !self.lead) || (other.any && !self.any) {
            return false;
        }
        let fits = |at: usize| self.head.iter().zip(&other.head[at..]).all(|(mine, theirs)| mine.covers(theirs));
        match (self.lead, self.any) {
            (false, false) => spare == 0 && fits(0),
            (false, true) => fits(0),
            (true, false) => fits(spare),
            (true, true) => (0..=spare).any(fits),
        }
    }

    /// Some sequence is matched by both.
    pub(super) fn overlaps(&self, other: &Segments<'_>) -> bool {
        // One may stand whole before the other.
        if (self.lead && other.any) || (self.any && other.lead) {
            return true;
        }
        if self.lead && self.any {
            return self.within(other);
        }
        if other.lead && other.any {
            return other.within(self);
        }
        let (mine, theirs) = (self.head.len(), other.head.len());
        if self.lead || other.lead {
            return (mine == theirs || (mine < theirs && self.lead) || (theirs < mine && other.lead))
                && self.head.iter().rev().zip(other.head.iter().rev()).all(|(a, b)| a.meets(b));
        }
        (mine == theirs || (mine < theirs && self.any) || (theirs < mine && other.any))
            && self.head.iter().zip(&other.head).all(|(a, b)| a.meets(b))
    }

    /// The head may stand somewhere in that of `other`, which is all of it.
    fn within(&self, other: &Segments<'_>) -> bool {
        let Some(spare) = other.head.len().checked_sub(self.head.len()) else { return false };
        (0..=spare).any(|at| self.head.iter().zip(&other.head[at..]).all(|(a, b)| a.meets(b)))
    }

    pub(super) fn is_concrete(&self) -> bool {
        !self.lead && !self.any && !self.head.contains(&Segment::One)
    }

    pub(super) fn only_wildcards(&self) -> bool {
        self.head.iter().all(|segment| *segment == Segment::One)
    }

    pub(super) fn ends_with_wildcard(&self) -> bool {
        self.head.last() == Some(&Segment::One)
    }

    /// The literals before the first wildcard.
    pub(super) fn first_literals(&self) -> Vec<&str> {
        self.head.iter().map_while(Segment::literal).collect()
    }

    /// The literals after the last wildcard.
    pub(super) fn last_literals(&self) -> Vec<&str> {
        let mut found: Vec<&str> = self.head.iter().rev().map_while(Segment::literal).collect();
        found.reverse();
        found
    }
}

impl<'a> Segment<'a> {
    pub(super) fn literal(&self) -> Option<&str> {
        match self {
            Segment::Literal(text) => Some(text),
            Segment::One => None,
        }
    }
}
