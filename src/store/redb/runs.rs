//! Runs, and where a client's position lies among them.
//!
//! A run begins at each start after an unclean stop. What the run before had assigned and not made
//! durable is lost, and its sequences are assigned anew: each run's first sequence tells from
//! where.

use crate::{position::Position, store::Placement};
use std::ops::RangeInclusive;

/// A run and the first sequence that it may assign.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Run {
    /// Its number.
    pub(super) number: u32,
    /// Sequences of earlier runs at or past this one are lost.
    pub(super) first: u64,
}

/// How the changes that a run lost are assigned anew when the log is read again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Replay {
    /// All events came from one partition: in the same order, so with the same sequences.
    SameOrder,
    /// Perhaps not: several partitions may mix in another order, and a log that was not synced may
    /// have lost its end.
    Interleaved,
}

/// The runs of a store, oldest first; never empty, and both fields never fall.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    epoch: u64,
    runs: Vec<Run>,
    current: Run,
}

impl Runs {
    /// `None` without a run: no store of ours is so.
    pub(super) fn new(epoch: u64, runs: Vec<Run>) -> Option<Self> {
        let current = *runs.last()?;
        Some(Self { epoch, runs, current })
    }

    /// With one more run, and without those that no kept position can be of: a run goes when its
    /// successor begins at or before `earliest`.
    pub(super) fn raised(&self, first: u64, earliest: u64) -> Self {
        let current = Run { number: self.current.number.saturating_add(1), first };
        let mut runs = self.runs.clone();
        runs.push(current);
        let gone = runs.windows(2).take_while(|pair| pair[1].first <= earliest).count();
        drop(runs.drain(..gone));
        Self { epoch: self.epoch, runs, current }
    }

    /// All, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        self.runs.iter().copied()
    }

    /// The position of a sequence: of the last run that may have assigned it.
    pub(super) fn position_of(&self, sequence: u64) -> Position {
        let later = self.runs.partition_point(|run| run.first <= sequence);
        let run = self.runs.get(later.saturating_sub(1)).unwrap_or(&self.current);
        Position { epoch: self.epoch, run: run.number, sequence }
    }

    /// Where a position lies, given what is kept and assigned (`kept`: the place before the oldest
    /// change, and the head). `replay` says how lost sequences were assigned anew.
    pub(super) fn place(
        &self,
        position: Position,
        kept: RangeInclusive<u64>,
        replay: Replay,
    ) -> Placement {
        let known = self.runs.iter().position(|run| run.number == position.run);
        let (Some(index), true) = (known, position.epoch == self.epoch) else {
            return Placement::Resync;
        };
        // What an older run assigned from the next run's first on was lost and assigned anew. Above
        // the head, nothing tells that it will be the same.
        let sequence = match self.runs.get(index + 1) {
            Some(next) if replay == Replay::Interleaved || !kept.contains(&position.sequence) => {
                position.sequence.min(next.first.saturating_sub(1))
            }
            _ => position.sequence,
        };
        if kept.contains(&sequence) { Placement::After(sequence) } else { Placement::Resync }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(firsts: &[u64]) -> Runs {
        let runs = firsts.iter().zip(1..).map(|(first, number)| Run { number, first: *first });
        Runs::new(7, runs.collect()).expect("not empty")
    }

    #[track_caller]
    fn check(runs: &Runs, run: u32, sequence: u64, expected: Placement) {
        let position = Position { epoch: 7, run, sequence };
        assert_eq!(runs.place(position, 10..=120, Replay::Interleaved), expected, "{position}");
    }

    #[test]
    fn a_replay_in_the_same_order_gives_lost_positions_back() {
        let runs = runs(&[1, 90, 100]);
        let place = |run, sequence| {
            runs.place(Position { epoch: 7, run, sequence }, 10..=120, Replay::SameOrder)
        };
        assert_eq!(place(1, 90), Placement::After(90));
        assert_eq!(place(2, 120), Placement::After(120));
        assert_eq!(place(1, 121), Placement::After(89), "not read again yet");
        assert_eq!(place(3, 121), Placement::Resync);
    }

    #[test]
    fn a_lost_position_resumes_where_its_run_was_cut() {
        let runs = runs(&[1, 90, 100]);
        check(&runs, 1, 50, Placement::After(50));
        check(&runs, 1, 89, Placement::After(89));
        check(&runs, 1, 90, Placement::After(89));
        check(&runs, 1, 500, Placement::After(89));
        check(&runs, 2, 99, Placement::After(99));
        check(&runs, 2, 110, Placement::After(99));
        check(&runs, 3, 110, Placement::After(110));
    }

    #[test]
    fn trimmed_future_and_foreign_positions_resync() {
        let runs = runs(&[1, 90, 100]);
        check(&runs, 1, 9, Placement::Resync);
        check(&runs, 1, 10, Placement::After(10));
        check(&runs, 3, 121, Placement::Resync);
        check(&runs, 4, 50, Placement::Resync);
        check(&runs, 0, 50, Placement::Resync);
        let foreign = Position { epoch: 8, run: 1, sequence: 50 };
        assert_eq!(runs.place(foreign, 10..=120, Replay::SameOrder), Placement::Resync);
    }

    #[test]
    fn a_sequence_belongs_to_the_last_run_that_may_have_assigned_it() {
        let runs = runs(&[1, 90, 100]);
        for (sequence, run) in [(0, 1), (1, 1), (89, 1), (90, 2), (99, 2), (100, 3), (200, 3)] {
            assert_eq!(runs.position_of(sequence).run, run, "{sequence}");
        }
    }

    #[test]
    fn runs_that_nothing_can_be_of_are_forgotten() {
        let runs = runs(&[1, 90, 100]).raised(150, 95);
        let left: Vec<_> = runs.iter().map(|run| (run.number, run.first)).collect();
        assert_eq!(left, [(2, 90), (3, 100), (4, 150)]);
    }
}
