//! Rotations composed from fewer keys.

use std::collections::VecDeque;

/// The fewest rotations among `available` that together rotate by `by`, all modulo `slots`: a
/// shortest path from 0 to `by` in the graph of the integers modulo `slots` in which an edge is an
/// available rotation. In ascending order (rotations commute), each in `1..slots`; empty if `by`
/// moves nothing. `None` if no sequence of them gives `by`.
///
/// Rotations are not undone by their negatives here: a key rotates one way only. O(slots *
/// available) steps, a breadth-first search.
///
/// ```
/// use veilformer_ckks::compose;
///
/// assert_eq!(compose(7, &[1, 4, 8], 64), Some(vec![1, 1, 1, 4]));
/// assert_eq!(compose(-1, &[21], 64), Some(vec![21, 21, 21]));
/// assert_eq!(compose(3, &[2, 4], 64), None);
/// ```
#[must_use]
pub fn compose(by: i64, available: &[i64], slots: usize) -> Option<Vec<i64>> {
    let modulus = i64::try_from(slots).ok().filter(|&slots| slots > 0)?;
    let target = by.rem_euclid(modulus) as usize;
    let mut steps: Vec<usize> = available
        .iter()
        .map(|step| step.rem_euclid(modulus) as usize)
        .filter(|&step| step != 0)
        .collect();
    steps.sort_unstable();
    steps.dedup();
    // The step by which each place was reached first; 0 for a place not yet reached.
    let mut reached_by = vec![0usize; slots];
    let mut queue = VecDeque::from([0usize]);
    while reached_by[target] == 0 && target != 0 {
        let place = queue.pop_front()?;
        for &step in &steps {
            let next = (place + step) % slots;
            if next != 0 && reached_by[next] == 0 {
                reached_by[next] = step;
                queue.push_back(next);
            }
        }
    }
    let mut path = Vec::new();
    let mut place = target;
    while place != 0 {
        let step = reached_by[place];
        path.push(step as i64);
        place = (place + slots - step) % slots;
    }
    path.sort_unstable();
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRng;

    /// Whether `count` of the steps reach `target`, by trying all.
    fn reachable(target: usize, steps: &[usize], slots: usize, count: usize) -> bool {
        let mut places = vec![false; slots];
        places[0] = true;
        for _ in 0..count {
            let mut next = vec![false; slots];
            for place in (0..slots).filter(|&place| places[place]) {
                steps
                    .iter()
                    .for_each(|step| next[(place + step) % slots] = true);
            }
            places = next;
        }
        places[target]
    }

    #[test]
    fn paths_lead_there_and_are_shortest() {
        let mut rng = TestRng::new(9);
        for slots in [1, 2, 16, 64] {
            for count in 0..4 {
                let available: Vec<i64> = (0..count)
                    .map(|_| rng.below(3 * slots) as i64 - slots as i64)
                    .collect();
                let steps: Vec<usize> = available
                    .iter()
                    .map(|a| a.rem_euclid(slots as i64) as usize)
                    .collect();
                for by in -(slots as i64)..=slots as i64 {
                    let target = by.rem_euclid(slots as i64) as usize;
                    let Some(path) = compose(by, &available, slots) else {
                        assert!((0..slots).all(|k| !reachable(target, &steps, slots, k)));
                        continue;
                    };
                    assert_eq!(
                        path.iter().sum::<i64>().rem_euclid(slots as i64),
                        target as i64
                    );
                    assert!(path.iter().all(|&step| steps.contains(&(step as usize))));
                    assert!((0..path.len()).all(|k| !reachable(target, &steps, slots, k)));
                }
            }
        }
        assert_eq!(compose(3, &[1], 0), None);
    }
}
