//! "Did you mean": the nearest known name.

/// The candidate nearest to `given`, if any is near enough to be a slip: a few edits away, or with
/// a part left out at its end.
pub(crate) fn nearest<'a>(
    given: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance_max = (given.chars().count() / 3).max(2);
    candidates
        .map(|candidate| match candidate.starts_with(given) {
            true => (0, candidate),
            false => (distance(given, candidate), candidate),
        })
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two texts (Levenshtein), one row at a time.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, given) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, wanted) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(given != *wanted);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_does_not() {
        let names = ["http-listen", "kafka-listen", "topic", "log"];
        let near = |given| nearest(given, names.into_iter());
        assert_eq!(near("http_listen"), Some("http-listen"));
        assert_eq!(near("htp-listn"), Some("http-listen"));
        assert_eq!(near("topics"), Some("topic"));
        assert_eq!(near("kafka"), Some("kafka-listen"));
        assert_eq!(near("completely-else"), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
