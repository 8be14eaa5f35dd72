//! Long input in pieces of whole lines, worked on by all cores, put together in order.

use std::io::{BufRead, Read};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::report::Unusable;

/// Bytes read at once. Enough lines to work on, few enough to hold several pieces.
const PIECE: usize = 256 * 1024;
/// Longest line: the server signs no larger record.
pub const MAX_LINE: usize = 256 * 1024 * 1024;

/// Cuts the input after line ends.
struct Cutter<R> {
    input: R,
    /// The beginning of a line whose end is not read yet.
    begun: Vec<u8>,
}

impl<R: Read> Cutter<R> {
    /// The next lines; empty at the end of the input.
    fn next(&mut self, mut piece: Vec<u8>) -> Result<Vec<u8>, Unusable> {
        piece.clear();
        piece.append(&mut self.begun);
        loop {
            let searched = piece.len();
            let read = self.input.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            if read.map_err(|e| Unusable(format!("the input cannot be read: {e}")))? == 0 {
                return Ok(piece);
            }
            if let Some(end) = memchr::memrchr(b'\n', &piece[searched..]) {
                self.begun.extend_from_slice(&piece[searched + end + 1..]);
                piece.truncate(searched + end + 1);
                return Ok(piece);
            }
            if piece.len() > MAX_LINE {
                return Err(Unusable(format!("a line is longer than {MAX_LINE} bytes")));
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
    let line = String::from_utf8(line).map_err(|_| Unusable("line 1 is no UTF-8".into()))?;
    Ok(if line.is_empty() { None } else { Some(line) })
}

/// Lets `threads` threads `work` on the pieces; `merge` gets the results in order, with the bytes of each piece.
pub fn run<T: Send>(
    input: impl Read + Send,
    threads: usize,
    work: impl Fn(&[u8]) -> T + Sync,
    mut merge: impl FnMut(T, usize) -> Result<(), Unusable>,
) -> Result<(), Unusable> {
    let mut cutter = Cutter { input, begun: Vec::new() };
    if threads <= 1 {
        let mut piece = Vec::new();
        loop {
            piece = cutter.next(piece)?;
            if piece.is_empty() {
                return Ok(());
            }
            merge(work(&piece), piece.len())?;
        }
    }
    type Done<T> = Result<(T, Vec<u8>), Unusable>;
    type Job<T> = (Vec<u8>, SyncSender<Done<T>>);
    // Each job brings the channel its result goes to; the queue of these channels is the order of the pieces.
    let (jobs, next_job) = sync_channel::<Job<T>>(threads);
    let (queue, in_order) = sync_channel::<Receiver<Done<T>>>(2 * threads);
    let (used, empty) = sync_channel::<Vec<u8>>(4 * threads);
    let next_job = Mutex::new(next_job);
    std::thread::scope(|scope| {
        // Ends the threads when this one stops early: they find their channels closed.
        let in_order = in_order;
        let (work, next_job) = (&work, &next_job);
        for _ in 0..threads {
            scope.spawn(move || {
                loop {
                    let job = next_job.lock().map(|jobs| jobs.recv());
                    let Ok(Ok((piece, done))) = job else { return };
                    let result = work(&piece);
                    // Nobody waits for it once something else has failed.
                    let _ = done.send(Ok((result, piece)));
                }
            });
        }
        scope.spawn(move || {
            loop {
                let piece = cutter.next(empty.try_recv().unwrap_or_default());
                let (done, result) = sync_channel(1);
                if piece.as_ref().is_ok_and(|piece| piece.is_empty()) || queue.send(result).is_err() {
                    return;
                }
                match piece {
                    Ok(piece) => {
                        if jobs.send((piece, done)).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let _ = done.send(Err(error));
                        return;
                    }
                }
            }
        });
        for result in &in_order {
            let (result, piece) = result.recv().map_err(|_| Unusable("a thread failed".into()))??;
            merge(result, piece.len())?;
            let _ = used.try_send(piece);
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
        run(input, threads, |piece| piece.to_vec(), merge).unwrap();
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
        for threads in [1, 2] {
            let error = run(Broken(0), threads, |_| (), |(), _| Ok(())).unwrap_err();
            assert_eq!(error.0, "the input cannot be read: gone");
        }
    }
}
