//! What an operation takes from the pool and gives back, in its order.

use std::rc::Rc;

use veilformer_ckks::Params;
use veilformer_ring::Basis;
use veilformer_ring::grouping::threads_within;

/// Where a polynomial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In the buffer that was taken at that place among all.
    Own(usize),
    /// In a buffer of the operands: twice the operand's number for its first half.
    Operand(usize),
}

/// A polynomial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Poly {
    pub(crate) place: Place,
    pub(crate) limbs: usize,
    /// Words that its buffer was taken for.
    pub(crate) whole: usize,
}

/// A ciphertext of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Value {
    pub(crate) level: usize,
    pub(crate) halves: [Poly; 2],
}

/// Something that happens to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// A buffer of so many words is taken.
    Take(usize),
    /// The buffer that was taken at that place among all is given back.
    Give(usize),
}

/// What happens during an operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    pub(crate) events: Vec<Event>,
    /// Parts of the operation, each with the time that it ends and the events until then.
    parts: Vec<(f64, usize)>,
    pub(crate) results: Vec<[Place; 2]>,
}

impl Script {
    /// The share of the operation's time at which an event happens: those of a part are spread evenly.
    pub(crate) fn when(&self, event: usize) -> f64 {
        let part = self.parts.partition_point(|part| part.1 <= event);
        let before = part
            .checked_sub(1)
            .and_then(|before| self.parts.get(before));
        let (from, first) = before.copied().unwrap_or((0.0, 0));
        let (to, end) = match self.parts.get(part) {
            Some(part) => *part,
            None => (from.max(1.0), self.events.len()),
        };
        let all = self.parts.last().map_or(1.0, |last| last.0.max(1e-12));
        let inside = (event - first) as f64 / (end - first).max(1) as f64;
        (from + (to - from) * inside) / all
    }
}

/// What happens to the pool, written down while it does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    events: Vec<Event>,
    /// Per buffer that was taken the words that it was for, and how many polynomials read it.
    buffers: Vec<(usize, usize)>,
}

impl Ledger {
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// A buffer of so many words, for one reader: its place among all.
    pub(crate) fn take(&mut self, words: usize) -> usize {
        self.events.push(Event::Take(words));
        self.buffers.push((words, 1));
        self.buffers.len() - 1
    }

    /// Words that a buffer was taken for.
    pub(crate) fn words(&self, number: usize) -> usize {
        self.buffers.get(number).map_or(0, |buffer| buffer.0)
    }

    fn readers(&self, number: usize) -> usize {
        self.buffers.get(number).map_or(0, |buffer| buffer.1)
    }

    /// One reader more.
    pub(crate) fn share(&mut self, number: usize) {
        if let Some((_, readers)) = self.buffers.get_mut(number) {
            *readers += 1;
        }
    }

    /// One reader less; the last one gives the buffer back.
    pub(crate) fn give(&mut self, number: usize) {
        let buffer = self.buffers.get_mut(number).filter(|b| b.1 > 0);
        let Some((_, readers)) = buffer else {
            return;
        };
        *readers -= 1;
        if *readers == 0 {
            self.events.push(Event::Give(number));
        }
    }
}

/// Writes a script.
pub(crate) struct Writer<'a> {
    pub(crate) params: &'a Params,
    /// Threads of the server.
    pub(crate) threads: usize,
    /// How many of them share this operation's work.
    pub(crate) sharing: usize,
    ledger: Ledger,
    parts: Vec<(f64, usize)>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(params: &'a Params, threads: usize, sharing: usize) -> Self {
        Self {
            params,
            threads: threads.max(1),
            sharing: sharing.max(1),
            ledger: Ledger::default(),
            parts: Vec::new(),
        }
    }

    pub(crate) fn n(&self) -> usize {
        self.params.n()
    }

    /// So many limbs.
    pub(crate) fn take(&mut self, limbs: usize) -> Poly {
        let words = limbs.saturating_mul(self.n());
        let place = Place::Own(self.ledger.take(words));
        Poly {
            place,
            limbs,
            whole: words,
        }
    }

    pub(crate) fn take_pair(&mut self, limbs: usize) -> [Poly; 2] {
        [self.take(limbs), self.take(limbs)]
    }

    /// Another reader of the same words.
    pub(crate) fn share(&mut self, poly: Poly) -> Poly {
        if let Place::Own(number) = poly.place {
            self.ledger.share(number);
        }
        poly
    }

    pub(crate) fn give(&mut self, polys: impl IntoIterator<Item = Poly>) {
        for poly in polys {
            if let Place::Own(number) = poly.place {
                self.ledger.give(number);
            }
        }
    }

    /// A polynomial on some of its primes: in its place where these are its first ones and most of them.
    pub(crate) fn restricted(&mut self, poly: Poly, (from, to): (Basis, Basis)) -> Poly {
        let words = to.len().saturating_mul(self.n());
        let first = from.iter().take(to.len()).eq(to.iter());
        if !first || 3 * words < 2 * poly.whole {
            return self.take(to.len());
        }
        let shared = self.share(poly);
        Poly {
            limbs: to.len(),
            ..shared
        }
    }

    /// The polynomial where it can be written to: it has a buffer of its own after that.
    pub(crate) fn written(&mut self, poly: Poly) -> Poly {
        if let Place::Own(number) = poly.place
            && self.ledger.readers(number) == 1
        {
            return poly;
        }
        let own = self.take(poly.limbs);
        self.give([poly]);
        own
    }

    /// Threads that may share work of so many limbs.
    pub(crate) fn threads_for(&self, limbs: usize) -> usize {
        threads_within(limbs.saturating_mul(self.n()), self.threads)
    }

    /// Scratch of each of at most `threads` threads, in words, which is given back at once.
    pub(crate) fn scratch(&mut self, threads: usize, words: &[usize]) {
        let count = self.sharing.min(threads.max(1));
        let each = std::iter::repeat_n(words, count).flatten();
        let taken: Vec<usize> = each.map(|words| self.ledger.take(*words)).collect();
        for number in taken {
            self.ledger.give(number);
        }
    }

    /// A part of the operation ends that takes so many seconds.
    pub(crate) fn end_part(&mut self, seconds: f64) {
        let last = self.parts.last().map_or(0.0, |last| last.0);
        let events = self.ledger.events.len();
        self.parts.push((last + seconds.max(0.0), events));
    }

    /// The script of an operation with these results.
    pub(crate) fn finish(self, results: &[Value]) -> Script {
        let places = |value: &Value| value.halves.map(|half| half.place);
        Script {
            events: self.ledger.events,
            parts: self.parts,
            results: results.iter().map(places).collect(),
        }
    }
}

/// A script on its way.
#[derive(Default)]
pub(crate) struct Performance {
    script: Rc<Script>,
    /// Buffers of the operands, two for each.
    operands: Vec<usize>,
    taken: Vec<usize>,
    /// Events that happened.
    done: usize,
}

impl Performance {
    pub(crate) fn new(script: Rc<Script>, operands: Vec<usize>) -> Self {
        Self {
            script,
            operands,
            taken: Vec::new(),
            done: 0,
        }
    }

    /// The share of its time at which the next event happens.
    pub(crate) fn next(&self) -> Option<f64> {
        (self.done < self.script.events.len()).then(|| self.script.when(self.done))
    }

    /// Lets the next event happen.
    pub(crate) fn step(&mut self, ledger: &mut Ledger) {
        match self.script.events.get(self.done) {
            Some(Event::Take(words)) => self.taken.push(ledger.take(*words)),
            Some(Event::Give(number)) => {
                if let Some(buffer) = self.taken.get(*number) {
                    ledger.give(*buffer);
                }
            }
            None => {}
        }
        self.done += 1;
    }

    /// All that is left to happen, and the buffers of the results, two for each.
    pub(crate) fn finish(mut self, ledger: &mut Ledger) -> Vec<[usize; 2]> {
        while self.done < self.script.events.len() {
            self.step(ledger);
        }
        let mut named = vec![false; self.taken.len()];
        let mut buffer = |place: Place| match place {
            Place::Own(number) => {
                let buffer = self.taken.get(number).copied().unwrap_or(usize::MAX);
                match named.get_mut(number) {
                    Some(named) if !*named => *named = true,
                    _ => ledger.share(buffer),
                }
                buffer
            }
            Place::Operand(number) => {
                let buffer = self.operands.get(number).copied().unwrap_or(usize::MAX);
                ledger.share(buffer);
                buffer
            }
        };
        let results = self.script.results.iter();
        results.map(|pair| pair.map(&mut buffer)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reader_gives_a_buffer_back() {
        let mut ledger = Ledger::default();
        let buffer = ledger.take(1024);
        ledger.share(buffer);
        ledger.give(buffer);
        assert_eq!(ledger.events(), [Event::Take(1024)]);
        ledger.give(buffer);
        ledger.give(buffer);
        assert_eq!(ledger.events(), [Event::Take(1024), Event::Give(0)]);
    }

    #[test]
    fn events_are_spread_over_the_parts_of_an_operation() {
        let script = Script {
            events: vec![Event::Take(1); 5],
            parts: vec![(1.0, 1), (1.0, 1), (4.0, 3)],
            results: Vec::new(),
        };
        let when: Vec<f64> = (0..5).map(|event| script.when(event)).collect();
        assert_eq!(when, [0.0, 0.25, 0.625, 1.0, 1.0]);
        let whole = Script {
            parts: Vec::new(),
            ..script
        };
        assert_eq!((whole.when(0), whole.when(3)), (0.0, 0.6));
    }
}
