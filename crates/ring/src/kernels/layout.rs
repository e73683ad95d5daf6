//! How the rows of a limb lie in memory.

use super::LOW_LOG;

/// Words of a line of cache.
pub(crate) const LINE: usize = 8;

/// A limb of `N` words, seen as rows of `2^LOW_LOG` words (one row if it is shorter).
///
/// Rows that follow one another are 32 KiB apart: equal columns of all rows fall into the same set of a
/// first-level cache, which has fewer ways than there are rows. So in scratch a line is left between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) rows: usize,
    /// Words of a row.
    pub(crate) width: usize,
    /// Words from one row to the next.
    pub(crate) pitch: usize,
}

impl Layout {
    /// Rows that follow one another.
    pub(crate) const fn dense(n: usize) -> Self {
        let width = if n < 1 << LOW_LOG { n } else { 1 << LOW_LOG };
        Self {
            rows: n / width,
            width,
            pitch: width,
        }
    }

    /// Rows with a line between them, if there are several.
    pub(crate) const fn apart(n: usize) -> Self {
        let dense = Self::dense(n);
        let line = if dense.rows > 1 { LINE } else { 0 };
        Self {
            pitch: dense.width + line,
            ..dense
        }
    }

    /// That of a slice of so many words; none if it holds no such limb.
    pub(crate) fn of(n: usize, words: usize) -> Option<Self> {
        let both = [Self::dense(n), Self::apart(n)];
        both.into_iter().find(|layout| layout.words() == words)
    }

    /// Words of a limb, with what lies between its rows.
    pub(crate) const fn words(self) -> usize {
        self.rows * self.pitch
    }

    /// Where word `i` of the limb is.
    pub(crate) const fn at(self, i: usize) -> usize {
        i / self.width * self.pitch + i % self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_by_their_words() {
        for log_n in 4..=17 {
            let n = 1usize << log_n;
            for layout in [Layout::dense(n), Layout::apart(n)] {
                assert_eq!(Layout::of(n, layout.words()), Some(layout));
                assert_eq!(layout.rows * layout.width, n);
                assert_eq!(
                    layout.at(n - 1),
                    layout.words() - layout.pitch + layout.width - 1
                );
            }
            assert_eq!(Layout::of(n, n + 1), None);
        }
        // Columns of sixteen rows, in 64 sets of lines.
        let apart = Layout::apart(1 << 16);
        let mut sets: Vec<usize> = (0..16).map(|r| apart.at(r << 12) / 8 % 64).collect();
        sets.dedup();
        assert_eq!(sets.len(), 16);
    }
}
