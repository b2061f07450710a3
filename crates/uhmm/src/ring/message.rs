//! What is said on the rings between a program and a device process.
//!
//! A message is eight words. The lowest byte of the first says what it is, the others of that word what
//! goes with it; what a message does not use is zero. So any words that are not exactly what an
//! encoder writes are refused.

use thiserror::Error;

use super::{Words, cause_of, cause_words};
use crate::{
    driver::FaultAccess,
    report::StayCause,
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// The version of the protocol. Sides of different versions do not talk.
pub const VERSION: u64 = 4;

/// Why an item failed, in words that the device and its driver agree on. The ring carries them as they are.
pub type ErrorWords = [u64; 5];

/// What there is that a message may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frames of the device's memory.
    pub frames: usize,
    /// Kernels that the device process has.
    pub kernels: usize,
    /// Workers of the device process, each with a ring of orders.
    pub workers: usize,
    /// The page after the last that the program can have.
    pub pages: usize,
    /// The size of a page, in bytes.
    pub page_bytes: usize,
}

/// Why words are no message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageError {
    /// no kind of message has this number
    #[error("no message has the number {kind}")]
    Kind {
        /// The number.
        kind: u8,
    },
    /// words that are not what the message is written as
    #[error("word {word} of message {kind} is {value:#x}, which nobody writes")]
    Word {
        /// The number of the message.
        kind: u8,
        /// The word, from 0 on.
        word: usize,
        /// What it is.
        value: u64,
    },
}

/// What the program tells the device's page table, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Enter translations: of pages within one block, to as many frames.
    Commit {
        /// The pages.
        pages: PageRange,
        /// The first frame; the others follow.
        frame: usize,
        /// Whether the device may write them.
        write: bool,
    },
    /// End the translations of pages within one block, and accesses through them.
    Invalidate {
        /// The pages.
        pages: PageRange,
    },
    /// End.
    Stop,
}

/// What the program has a worker of the device do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run a kernel, together with the other workers, which are told so too.
    Launch {
        /// Which, from 0 on.
        kernel: usize,
        /// The first item.
        first: u64,
        /// How many items.
        count: u64,
        /// What the kernel is given.
        arguments: [u64; 4],
    },
    /// The worker's fault was served. What commands there were up to then are to be applied first.
    Served {
        /// How many commands were sent before.
        commands: u64,
    },
    /// The worker's fault was not served.
    Refused {
        /// Why the page stays where it is; none where the launch does not name it.
        cause: Option<StayCause>,
    },
}

/// What a device tells of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A worker needs a page, and waits for it unless it is a hint.
    Fault {
        /// The worker.
        worker: usize,
        /// An address in it.
        address: usize,
        /// What for.
        access: FaultAccess,
    },
    /// A worker has no more to do of the launch.
    Done {
        /// The worker.
        worker: usize,
    },
    /// A worker has left the launch at an item that failed.
    Failed {
        /// The worker.
        worker: usize,
        /// The item.
        item: u64,
        /// Why.
        error: ErrorWords,
    },
}

/// What a page is wanted for, by its number.
const ACCESSES: [FaultAccess; 4] =
    [FaultAccess::Prefetch, FaultAccess::Read, FaultAccess::Write, FaultAccess::Atomic];

const COMMIT: u8 = 1;
const INVALIDATE: u8 = 2;
const STOP: u8 = 3;
const LAUNCH: u8 = 16;
const SERVED: u8 = 17;
const REFUSED: u8 = 18;
const FAULT: u8 = 32;
const DONE: u8 = 33;
const FAILED: u8 = 34;

/// Words that are read one after the other, all of which have to be.
struct Reader {
    words: Words,
    kind: u8,
}

impl Reader {
    fn new(words: Words) -> Self {
        let kind = words[0].to_le_bytes()[0];
        Self { words, kind }
    }

    fn refuse<T>(&self, word: usize) -> Result<T, MessageError> {
        Err(MessageError::Word { kind: self.kind, word, value: self.words[word] })
    }

    /// A word that is below `limit`.
    fn below(&self, word: usize, limit: usize) -> Result<usize, MessageError> {
        match usize::try_from(self.words[word]) {
            Ok(value) if value < limit => Ok(value),
            _ => self.refuse(word),
        }
    }

    /// What is in the first word beside the kind: nothing, or a flag.
    fn flag(&self) -> Result<bool, MessageError> {
        match self.words[0] >> 8 {
            0 => Ok(false),
            1 => Ok(true),
            _ => self.refuse(0),
        }
    }

    /// That there is nothing beside the kind, and no flag.
    fn no_flag(&self) -> Result<(), MessageError> {
        if self.flag()? { self.refuse(0) } else { Ok(()) }
    }

    /// That words from `first` on are zero.
    fn end(&self, first: usize) -> Result<(), MessageError> {
        match (first..self.words.len()).find(|&word| self.words[word] != 0) {
            Some(word) => self.refuse(word),
            None => Ok(()),
        }
    }

    /// Pages within one block: the first in one word, how many in the next.
    fn pages(&self, word: usize, limits: &Limits) -> Result<PageRange, MessageError> {
        let first = PageNumber(self.below(word, limits.pages)?);
        let most = (BLOCK_PAGES - first.in_block()).min(limits.pages - first.0);
        match self.below(word + 1, most + 1)? {
            0 => self.refuse(word + 1),
            count => Ok(PageRange::of(first, count)),
        }
    }
}

/// A message's first word.
const fn head(kind: u8, flag: bool) -> u64 {
    kind as u64 | (flag as u64) << 8
}

fn put_pages(words: &mut Words, at: usize, pages: PageRange) {
    words[at] = pages.start().0 as u64;
    words[at + 1] = pages.len() as u64;
}

impl Command {
    /// As it goes into a ring.
    pub fn encode(&self) -> Words {
        let mut words = [0; super::WORDS];
        match *self {
            Self::Commit { pages, frame, write } => {
                words[0] = head(COMMIT, write);
                put_pages(&mut words, 1, pages);
                words[3] = frame as u64;
            }
            Self::Invalidate { pages } => {
                words[0] = head(INVALIDATE, false);
                put_pages(&mut words, 1, pages);
            }
            Self::Stop => words[0] = head(STOP, false),
        }
        words
    }

    /// What came out of a ring.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(words: Words, limits: &Limits) -> Result<Self, MessageError> {
        let reader = Reader::new(words);
        match reader.kind {
            COMMIT => {
                let write = reader.flag()?;
                let pages = reader.pages(1, limits)?;
                let frame = reader.below(3, limits.frames)?;
                if pages.len() > limits.frames - frame {
                    return reader.refuse(2);
                }
                reader.end(4)?;
                Ok(Self::Commit { pages, frame, write })
            }
            INVALIDATE => {
                reader.no_flag()?;
                let pages = reader.pages(1, limits)?;
                reader.end(3)?;
                Ok(Self::Invalidate { pages })
            }
            STOP => {
                reader.no_flag()?;
                reader.end(1)?;
                Ok(Self::Stop)
            }
            kind => Err(MessageError::Kind { kind }),
        }
    }
}

impl Order {
    /// As it goes into a ring.
    pub fn encode(&self) -> Words {
        match *self {
            Self::Launch { kernel, first, count, arguments: [one, two, three, four] } => {
                [head(LAUNCH, false), kernel as u64, first, count, one, two, three, four]
            }
            Self::Served { commands } => [head(SERVED, false), commands, 0, 0, 0, 0, 0, 0],
            Self::Refused { cause } => {
                let [number, with] = cause.map_or([0, 0], cause_words);
                [head(REFUSED, cause.is_some()), number, with, 0, 0, 0, 0, 0]
            }
        }
    }

    /// What came out of a ring.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(words: Words, limits: &Limits) -> Result<Self, MessageError> {
        let reader = Reader::new(words);
        match reader.kind {
            LAUNCH => {
                reader.no_flag()?;
                let kernel = reader.below(1, limits.kernels)?;
                let [_, _, first, count, one, two, three, four] = words;
                if first.checked_add(count).is_none() {
                    return reader.refuse(3);
                }
                Ok(Self::Launch { kernel, first, count, arguments: [one, two, three, four] })
            }
            SERVED => {
                reader.no_flag()?;
                reader.end(2)?;
                Ok(Self::Served { commands: words[1] })
            }
            REFUSED if reader.flag()? => {
                let Some(cause) = cause_of([words[1], words[2]]) else { return reader.refuse(1) };
                reader.end(3)?;
                Ok(Self::Refused { cause: Some(cause) })
            }
            REFUSED => {
                reader.end(1)?;
                Ok(Self::Refused { cause: None })
            }
            kind => Err(MessageError::Kind { kind }),
        }
    }
}

impl Report {
    /// As it goes into a ring.
    pub fn encode(&self) -> Words {
        match *self {
            Self::Fault { worker, address, access } => {
                let access = ACCESSES.iter().take_while(|&&other| other != access).count();
                [head(FAULT, false), worker as u64, address as u64, access as u64, 0, 0, 0, 0]
            }
            Self::Done { worker } => [head(DONE, false), worker as u64, 0, 0, 0, 0, 0, 0],
            Self::Failed { worker, item, error: [one, two, three, four, five] } => {
                [head(FAILED, false), worker as u64, item, one, two, three, four, five]
            }
        }
    }

    /// What came out of a ring.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(words: Words, limits: &Limits) -> Result<Self, MessageError> {
        let reader = Reader::new(words);
        match reader.kind {
            FAULT => {
                reader.no_flag()?;
                let worker = reader.below(1, limits.workers)?;
                let bytes = limits.pages.saturating_mul(limits.page_bytes);
                let address = reader.below(2, bytes)?;
                let access = ACCESSES[reader.below(3, ACCESSES.len())?];
                reader.end(4)?;
                Ok(Self::Fault { worker, address, access })
            }
            DONE => {
                reader.no_flag()?;
                let worker = reader.below(1, limits.workers)?;
                reader.end(2)?;
                Ok(Self::Done { worker })
            }
            FAILED => {
                reader.no_flag()?;
                let worker = reader.below(1, limits.workers)?;
                let [_, _, item, one, two, three, four, five] = words;
                Ok(Self::Failed { worker, item, error: [one, two, three, four, five] })
            }
            kind => Err(MessageError::Kind { kind }),
        }
    }
}
