//! Columns as the values they stand for. Only what was valid is ever written, so a column that does
//! not parse is a fault of ours and says so.

use std::{fmt::Display, str::FromStr};

use model::{Error, Result};

/// A text column.
pub(crate) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error| Error::Internal(format!("{text:?} is stored where it cannot be: {error}")))
}

/// A number column that Postgres has no unsigned type for.
pub(crate) fn number<From, To: TryFrom<From>>(stored: From) -> Result<To>
where
    From: Copy + Display,
{
    To::try_from(stored).map_err(|_| Error::Internal(format!("{stored} is stored where it cannot be")))
}
