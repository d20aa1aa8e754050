//! What a TABLE_MAP event tells of a table: the types of its columns, and what the server adds to
//! read values by (`binlog_row_metadata`): signs and character sets always, names with FULL.

use super::super::event::{Checksum, EventError, RawEvent};
use super::charset::Charset;
use super::column::{Layout, kind};
use crate::mysql::wire::packet::{Fields, Truncated};

/// The types of the fields behind the columns (`Optional_metadata_field_type`).
mod field {
    pub(super) const SIGNEDNESS: u64 = 1;
    pub(super) const DEFAULT_CHARSET: u64 = 2;
    pub(super) const COLUMN_CHARSET: u64 = 3;
    pub(super) const COLUMN_NAME: u64 = 4;
    pub(super) const SET_VALUES: u64 = 5;
    pub(super) const ENUM_VALUES: u64 = 6;
    pub(super) const ENUM_DEFAULT_CHARSET: u64 = 10;
    pub(super) const ENUM_COLUMN_CHARSET: u64 = 11;
}

/// What is known of a table whose rows follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    /// The number by which rows events name it.
    pub id: u64,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its columns.
    pub layout: Layout,
    /// One for each column; all empty if the binlog has none.
    names: Vec<String>,
    /// For each column, whether it has no sign; `None` if the binlog does not tell.
    unsigned: Vec<Option<bool>>,
    charsets: Vec<Charset>,
    /// The words of ENUM and SET columns.
    labels: Vec<Vec<String>>,
}

impl TableMap {
    /// Reads a TABLE_MAP event.
    ///
    /// # Errors
    ///
    /// [`EventError`] if its bytes make no sense.
    pub fn parse(event: &RawEvent<'_>, checksum: Checksum) -> Result<Self, EventError> {
        let (id, schema, table) = event.table_map(checksum)?;
        let mut fields = Fields::new(event.body(checksum)?);
        fields.bytes(8)?;
        for _ in 0..2 {
            fields.lenenc_bytes()?;
            fields.bytes(1)?;
        }
        let layout = Layout::take(&mut fields)?;
        let count = layout.columns.len();
        let mut map = Self {
            id,
            schema: String::from_utf8_lossy(schema).into_owned(),
            table: String::from_utf8_lossy(table).into_owned(),
            layout,
            names: Vec::new(),
            unsigned: vec![None; count],
            charsets: vec![Charset::Unknown; count],
            labels: vec![Vec::new(); count],
        };
        while !fields.is_empty() {
            let field = fields.uint::<1>()?;
            let mut value = Fields::new(fields.lenenc_bytes()?);
            map.take(field, &mut value)?;
        }
        Ok(map)
    }

    /// `schema.table`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// A column as rows show it: its name, else `@1` for the first.
    #[must_use]
    pub fn column(&self, number: usize) -> String {
        match self.names.get(number) {
            Some(name) => name.clone(),
            None => format!("@{}", number + 1),
        }
    }

    /// Whether the binlog tells the columns' names.
    #[must_use]
    pub const fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    pub(super) fn is_unsigned(&self, number: usize) -> bool {
        self.unsigned
            .get(number)
            .copied()
            .flatten()
            .unwrap_or(false)
    }

    pub(super) fn charset(&self, number: usize) -> Charset {
        self.charsets
            .get(number)
            .copied()
            .unwrap_or(Charset::Unknown)
    }

    pub(super) fn labels(&self, number: usize) -> &[String] {
        self.labels.get(number).map_or(&[], Vec::as_slice)
    }

    fn take(&mut self, field: u64, value: &mut Fields<'_>) -> Result<(), EventError> {
        match field {
            field::SIGNEDNESS => {
                let numeric = self.numbers(|column| column.is_numeric());
                for (place, number) in numeric.into_iter().enumerate() {
                    let byte = value.rest().get(place / 8).ok_or(Truncated)?;
                    self.unsigned[number] = Some(byte & 0x80 >> (place % 8) != 0);
                }
            }
            field::DEFAULT_CHARSET => {
                let numbers = self.numbers(|column| column.is_character());
                self.take_default(&numbers, value)?;
            }
            field::ENUM_DEFAULT_CHARSET => {
                let numbers = self.numbers(|column| is_choice(column.kind));
                self.take_default(&numbers, value)?;
            }
            field::COLUMN_CHARSET => {
                let numbers = self.numbers(|column| column.is_character());
                self.take_each(&numbers, value)?;
            }
            field::ENUM_COLUMN_CHARSET => {
                let numbers = self.numbers(|column| is_choice(column.kind));
                self.take_each(&numbers, value)?;
            }
            field::COLUMN_NAME => {
                let mut names = Vec::with_capacity(self.layout.columns.len());
                for _ in 0..self.layout.columns.len() {
                    let name = value.lenenc_bytes()?;
                    names.push(String::from_utf8_lossy(name).into_owned());
                }
                self.names = names;
            }
            field::SET_VALUES => self.take_labels(kind::SET, value)?,
            field::ENUM_VALUES => self.take_labels(kind::ENUM, value)?,
            _ => {}
        }
        Ok(())
    }

    /// The numbers of the columns that a field tells of.
    fn numbers(&self, is: impl Fn(&super::column::Column) -> bool) -> Vec<usize> {
        let columns = self.layout.columns.iter().enumerate();
        columns
            .filter(|(_, column)| is(column))
            .map(|(number, _)| number)
            .collect()
    }

    /// One collation for all, and those of the columns that have another.
    fn take_default(
        &mut self,
        numbers: &[usize],
        value: &mut Fields<'_>,
    ) -> Result<(), EventError> {
        let default = Charset::of(value.lenenc()?);
        for &number in numbers {
            self.charsets[number] = default;
        }
        while !value.is_empty() {
            let place = usize::try_from(value.lenenc()?).map_err(|_| Truncated)?;
            let charset = Charset::of(value.lenenc()?);
            if let Some(&number) = numbers.get(place) {
                self.charsets[number] = charset;
            }
        }
        Ok(())
    }

    fn take_each(&mut self, numbers: &[usize], value: &mut Fields<'_>) -> Result<(), EventError> {
        for &number in numbers {
            self.charsets[number] = Charset::of(value.lenenc()?);
        }
        Ok(())
    }

    fn take_labels(&mut self, kind: u8, value: &mut Fields<'_>) -> Result<(), EventError> {
        for number in self.numbers(|column| column.kind == kind) {
            let count = value.lenenc()?;
            let mut labels = Vec::new();
            for _ in 0..count {
                labels.push(value.lenenc_bytes()?.to_vec());
            }
            // The fields of the character sets stand before these.
            let charset = self.charset(number);
            // Words that cannot be read are not shown: then the number stands there.
            let words: Option<Vec<String>> = labels
                .iter()
                .map(|label| charset.text(label).map(std::borrow::Cow::into_owned))
                .collect();
            self.labels[number] = words.unwrap_or_default();
        }
        Ok(())
    }
}

const fn is_choice(kind: u8) -> bool {
    matches!(kind, kind::ENUM | kind::SET)
}
