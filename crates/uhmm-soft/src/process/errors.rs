//! Why an item failed, as words of a message.

use uhmm::{
    DeviceFaultError,
    mm::Errno,
    ring::{ErrorWords, cause_of, cause_words},
};

use crate::errors::AccessError;

const FAULT: u64 = 1;
const WRAPS: u64 = 2;
const UNALIGNED: u64 = 3;
const REFUSED: u64 = 4;
const HANDLERS: u64 = 5;
const OUT_OF_BOUNDS: u64 = 6;
const NOT_NAMED: u64 = 7;
const GIVEN_UP: u64 = 8;

/// An error as it goes into a message.
pub(super) fn words_of(error: &AccessError) -> ErrorWords {
    match *error {
        AccessError::Fault(DeviceFaultError { address, cause }) => {
            let [number, with] = cause_words(cause);
            [FAULT, address as u64, number, with, 0]
        }
        AccessError::Wraps { address, len } => [WRAPS, address as u64, len as u64, 0, 0],
        AccessError::Unaligned { address, len } => [UNALIGNED, address as u64, len as u64, 0, 0],
        AccessError::Refused { address } => [REFUSED, address as u64, 0, 0, 0],
        AccessError::Handlers { address, errno: Errno(errno) } => {
            [HANDLERS, address as u64, errno.cast_unsigned().into(), 0, 0]
        }
        AccessError::OutOfBounds { first, count, len } => {
            [OUT_OF_BOUNDS, first as u64, count as u64, len as u64, 0]
        }
        AccessError::NotNamed { address } => [NOT_NAMED, address as u64, 0, 0, 0],
        // Nothing is mapped where it is by a device process, so the kernel made this up.
        AccessError::Map(uhmm::MapError { address, .. }) | AccessError::GivenUp { address } => {
            [GIVEN_UP, address as u64, 0, 0, 0]
        }
    }
}

/// The error that was written as these words; none where no error is.
pub(super) fn error_of(words: ErrorWords) -> Option<AccessError> {
    let [kind, address, two, three, _] = words;
    let number = |word: u64| usize::try_from(word).ok();
    let address = number(address)?;
    let error = match kind {
        FAULT => DeviceFaultError { address, cause: cause_of([two, three])? }.into(),
        WRAPS => AccessError::Wraps { address, len: number(two)? },
        UNALIGNED => AccessError::Unaligned { address, len: number(two)? },
        REFUSED => AccessError::Refused { address },
        HANDLERS => {
            let errno = Errno(u32::try_from(two).ok()?.cast_signed());
            AccessError::Handlers { address, errno }
        }
        OUT_OF_BOUNDS => {
            AccessError::OutOfBounds { first: address, count: number(two)?, len: number(three)? }
        }
        NOT_NAMED => AccessError::NotNamed { address },
        GIVEN_UP => AccessError::GivenUp { address },
        _ => return None,
    };
    (words_of(&error) == words).then_some(error)
}

#[cfg(test)]
mod tests {
    use uhmm::StayCause;

    use super::*;

    #[test]
    fn errors_are_read_as_they_were_written() {
        let (address, len) = (0x1234, 8);
        let errors = [
            DeviceFaultError { address, cause: StayCause::DeviceFails(-5) }.into(),
            AccessError::Wraps { address: usize::MAX, len },
            AccessError::Unaligned { address, len },
            AccessError::Refused { address },
            AccessError::Handlers { address, errno: Errno(22) },
            AccessError::OutOfBounds { first: 7, count: 8, len: 9 },
            AccessError::NotNamed { address },
            AccessError::GivenUp { address },
        ];
        for error in errors {
            assert_eq!(error_of(words_of(&error)), Some(error));
            let mut more = words_of(&error);
            more[4] = 1;
            assert_eq!(error_of(more), None);
        }
        assert_eq!(error_of([0; 5]), None);
        assert_eq!(error_of([FAULT, 0, 0, 0, 0]), None);
    }
}
