//! Long input in pieces of whole lines, worked on by all cores, put together in order.

use std::io::{BufRead, Read};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::report::Unusable;

/// Bytes read at once. Enough lines to work on, few enough to hold several pieces.
const PIECE: usize = 256 * 1024;
/// Longest line: the server signs no larger record.
pub const MAX_LINE: usize = 256 * 1024 * 1024;

/// Said of a record whose line is longer.
pub const TOO_LONG: &str = "its line is longer than 268435456 bytes and was not read";
/// Bytes of a line that is too long which are kept: enough to name it.
const HEAD: usize = 256;

/// What is worked on at once.
pub enum Piece<'a> {
    /// Whole lines.
    Lines(&'a [u8]),
    /// The beginning of one line that is longer than [`MAX_LINE`]. The rest was passed over.
    TooLong(&'a [u8]),
}

/// Cuts the input after line ends.
struct Cutter<R> {
    input: R,
    /// The beginning of a line whose end is not read yet.
    begun: Vec<u8>,
    /// The piece is the beginning of a line that is too long.
    too_long: bool,
}

impl<R: Read> Cutter<R> {
    fn piece<'a>(&self, bytes: &'a [u8]) -> Piece<'a> {
        if self.too_long { Piece::TooLong(bytes) } else { Piece::Lines(bytes) }
    }

    /// Puts the next lines into `piece`, or the beginning of one that is too long; false at the end of the input.
    fn next(&mut self, piece: &mut Vec<u8>) -> Result<bool, Unusable> {
        piece.clear();
        piece.append(&mut self.begun);
        self.too_long = false;
        loop {
            if piece.len() > MAX_LINE {
                self.too_long = true;
                *piece = piece[..HEAD].to_vec();
            }
            let searched = piece.len();
            let read = self.input.by_ref().take(PIECE as u64).read_to_end(piece);
            if read.map_err(|e| Unusable(format!("the input cannot be read: {e}")))? == 0 {
                return Ok(!piece.is_empty());
            }
            if self.too_long {
                let end = memchr::memchr(b'\n', &piece[searched..]).map(|end| searched + end + 1);
                self.begun.extend_from_slice(&piece[end.unwrap_or(piece.len())..]);
                piece.truncate(HEAD);
                if end.is_some() {
                    return Ok(true);
                }
                continue;
            }
            if let Some(end) = memchr::memrchr(b'\n', &piece[searched..]) {
                self.begun.extend_from_slice(&piece[searched + end + 1..]);
                piece.truncate(searched + end + 1);
                return Ok(true);
            }
        }
    }
}

/// One line, without its end; none at the end of the input.
pub fn first_line(input: &mut impl BufRead) -> Result<Option<String>, Unusable> {
    let mut line = Vec::new();
    let read = input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
    read.map_err(|e| Unusable(format!("the input cannot be read: {e}")))?;
    if line.len() > MAX_LINE {
        return Err(Unusable(format!("a line is longer than {MAX_LINE} bytes")));
    }
    let line = String::from_utf8(line).map_err(|_| Unusable("line 1 is not valid UTF-8".into()))?;
    let line = line.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(line);
    Ok(if line.is_empty() { None } else { Some(line) })
}

/// Lets `threads` threads `work` on the pieces; `merge` gets the results in order, with the bytes of each piece.
pub fn run<T: Send>(
    input: impl Read + Send,
    threads: usize,
    work: impl Fn(Piece<'_>) -> T + Sync,
    mut merge: impl FnMut(T, usize) -> Result<(), Unusable>,
) -> Result<(), Unusable> {
    let mut cutter = Cutter { input, begun: Vec::new(), too_long: false };
    if threads <= 1 {
        let mut piece = Vec::new();
        while cutter.next(&mut piece)? {
            merge(work(cutter.piece(&piece)), piece.len())?;
        }
        return Ok(());
    }
    // Each thread reads the piece it works on, while it is in the cache of its core. Under the same lock it queues
    // the channel on which its result will come: so the queue has the order of the pieces.
    let (queue, in_order) = sync_channel::<Receiver<Result<(T, usize), Unusable>>>(2 * threads);
    let source = Mutex::new((cutter, Some(queue)));
    std::thread::scope(|scope| {
        // Gone with this closure, so that the threads end when it stops early.
        let in_order = in_order;
        let (work, source) = (&work, &source);
        for _ in 0..threads {
            scope.spawn(move || {
                let mut piece = Vec::new();
                loop {
                    let (done, result) = sync_channel(1);
                    let too_long = {
                        let Ok(mut source) = source.lock() else { return };
                        let (cutter, open) = &mut *source;
                        let Some(queue) = open else { return };
                        let read = cutter.next(&mut piece);
                        let more = match read {
                            Ok(more) => more && queue.send(result).is_ok(),
                            Err(error) => {
                                let _ = done.send(Err(error));
                                let _ = queue.send(result);
                                false
                            }
                        };
                        if !more {
                            *open = None;
                            return;
                        }
                        cutter.too_long
                    };
                    let work_on = if too_long { Piece::TooLong(&piece) } else { Piece::Lines(&piece) };
                    // Nobody waits for it once something else has failed.
                    let _ = done.send(Ok((work(work_on), piece.len())));
                }
            });
        }
        for result in &in_order {
            let (result, length) = result.recv().map_err(|_| Unusable("a thread failed".into()))??;
            merge(result, length)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(input: &[u8], threads: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let merge = |piece: Vec<u8>, length: usize| {
            assert_eq!(piece.len(), length);
            out.extend(piece);
            Ok(())
        };
        let work = |piece: Piece| match piece {
            Piece::Lines(lines) => lines.to_vec(),
            Piece::TooLong(_) => unreachable!("no such line is given"),
        };
        run(input, threads, work, merge).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn nothing_is_lost_and_the_order_stays(lengths in prop::collection::vec(prop_oneof![0usize..200, 0usize..400_000], 0..30), end in any::<bool>()) {
            let mut input: Vec<u8> = Vec::new();
            for (i, length) in lengths.iter().enumerate() {
                input.extend(std::iter::repeat_n(b'a' + i as u8 % 26, *length));
                input.push(b'\n');
            }
            if !end {
                input.pop();
            }
            for threads in [1, 2, 5] {
                prop_assert!(lines(&input, threads) == input);
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        for (end, last) in [(&b"\nc\nd"[..], &b"c\nd"[..]), (&b""[..], &b""[..])] {
            let mut told = Vec::new();
            let work = |piece: Piece| match piece {
                Piece::Lines(lines) => (lines.to_vec(), false),
                Piece::TooLong(head) => (head.to_vec(), true),
            };
            let long = std::io::repeat(b'x').take((MAX_LINE + 2 * PIECE) as u64);
            let input = (&b"a\nb\n{\"leaf\":7,"[..]).chain(long).chain(end);
            run(input, 1, work, |piece, _| {
                told.push(piece);
                Ok(())
            })
            .unwrap();
            let (lines, long): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, too_long)| !too_long);
            let lines: Vec<u8> = lines.into_iter().flat_map(|(lines, _)| lines).collect();
            assert!(lines == [b"a\nb\n", last].concat(), "{} bytes", lines.len());
            assert!(long.len() == 1 && long[0].0.starts_with(b"{\"leaf\":7,xxx") && long[0].0.len() == HEAD);
        }
    }

    #[test]
    fn an_error_ends_all_threads() {
        let input = "x\n".repeat(4 * PIECE);
        for threads in [1, 3] {
            let mut merged = 0;
            let merge = |_: (), _: usize| {
                merged += 1;
                if merged == 3 { Err(Unusable("enough".into())) } else { Ok(()) }
            };
            assert_eq!(run(input.as_bytes(), threads, |_| (), merge), Err(Unusable("enough".into())));
        }
    }

    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 > 40 {
                return Err(std::io::Error::other("gone"));
            }
            buffer.fill(b'\n');
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_read_error_is_told() {
        for (threads, before) in [(1, 0), (1, 40), (2, 0), (2, 40)] {
            let error = run(Broken(before), threads, |_| (), |(), _| Ok(())).unwrap_err();
            assert_eq!(error.0, "the input cannot be read: gone");
        }
    }
}
