//! GTID sets as bytes: the PREVIOUS_GTIDS event's body and the set of COM_BINLOG_DUMP_GTID.
//!
//! Both formats are those of `Gtid_set::encode` (`sql/rpl_gtid_set.cc`), integers little-endian:
//! the number of origins (8 bytes), then for each its UUID (16), with tags the tag's length and
//! text, the number of intervals (8), and per interval its first number (8) and the one after
//! its last (8). The highest byte of the first field is the format: 0 without tags; 1 with tags,
//! then the lowest byte is 1 as well and the number stands in the six bytes between. A tag's
//! length is an integer of variable length (`libs/mysql/serialization`), which up to 127 is one
//! byte with the value doubled.

use uuid::Uuid;

use super::{GtidError, GtidSet, MAX_GNO, Tag, Tsid};

/// `Gtid_format::tagged` (`libs/mysql/gtids/gtid_constants.h`).
const TAGGED: u8 = 1;

impl GtidSet {
    /// The bytes in the format that has tags only if it must: as servers send and store it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_legacy()
            .unwrap_or_else(|_| self.encode_tagged())
    }

    /// The bytes in the format without tags.
    ///
    /// # Errors
    ///
    /// [`GtidError::Tagged`] if there is a tag in the set.
    pub fn encode_legacy(&self) -> Result<Vec<u8>, GtidError> {
        if let Some(tag) = self.tsids().find_map(|tsid| tsid.tag.as_ref()) {
            return Err(GtidError::Tagged {
                tag: tag.to_string(),
            });
        }
        Ok(self.encode_as(self.origins().len() as u64, false))
    }

    /// The bytes in the format with tags, which servers before 8.3 do not know.
    #[must_use]
    pub fn encode_tagged(&self) -> Vec<u8> {
        let format = u64::from(TAGGED);
        let header = format << 56 | (self.origins().len() as u64) << 8 | format;
        self.encode_as(header, true)
    }

    fn encode_as(&self, header: u64, tagged: bool) -> Vec<u8> {
        let mut bytes = header.to_le_bytes().to_vec();
        for (tsid, intervals) in self.origins() {
            bytes.extend_from_slice(tsid.uuid.as_bytes());
            if tagged {
                let tag = tsid.tag.as_ref().map_or("", Tag::as_str);
                // At most 32, so that the variable-length integer is this one byte.
                bytes.push((tag.len() as u8) << 1);
                bytes.extend_from_slice(tag.as_bytes());
            }
            bytes.extend_from_slice(&(intervals.as_slice().len() as u64).to_le_bytes());
            for interval in intervals.as_slice() {
                bytes.extend_from_slice(&interval.start.to_le_bytes());
                bytes.extend_from_slice(&(interval.end + 1).to_le_bytes());
            }
        }
        bytes
    }

    /// The set of these bytes, in either format, which must end with it.
    ///
    /// Takes memory in proportion to the bytes, whatever their counts claim.
    ///
    /// # Errors
    ///
    /// [`GtidError::Binary`] if they are not an encoded set.
    pub fn decode(bytes: &[u8]) -> Result<Self, GtidError> {
        let mut reader = Reader { bytes, offset: 0 };
        let header = reader.u64()?.to_le_bytes();
        let (origins, tagged) = match (header[7], header[0]) {
            (0, _) => (u64::from_le_bytes(header), false),
            (TAGGED, TAGGED) => {
                let [_, a, b, c, d, e, f, _] = header;
                (u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), true)
            }
            _ => return Err(reader.malformed("unknown format")),
        };
        let mut set = Self::new();
        for _ in 0..origins {
            let tsid = reader.tsid(tagged)?;
            reader.intervals(&tsid, &mut set)?;
        }
        if reader.offset == bytes.len() {
            Ok(set)
        } else {
            Err(reader.malformed("bytes after the end"))
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    const fn malformed(&self, reason: &'static str) -> GtidError {
        GtidError::Binary {
            offset: self.offset,
            reason,
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], GtidError> {
        let taken = self
            .bytes
            .get(self.offset..)
            .and_then(|rest| rest.get(..length))
            .ok_or_else(|| self.malformed("cut short"))?;
        self.offset += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GtidError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u64(&mut self) -> Result<u64, GtidError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn tsid(&mut self, tagged: bool) -> Result<Tsid, GtidError> {
        let uuid = Uuid::from_bytes(self.array()?);
        if !tagged {
            return Ok(Tsid::untagged(uuid));
        }
        let [length] = self.array()?;
        // A set lowest bit says that more bytes follow, which no length of a tag needs.
        if length & 1 == 1 || usize::from(length >> 1) > Tag::MAX_LENGTH {
            return Err(self.malformed("tag too long"));
        }
        let text = self.take(usize::from(length >> 1))?;
        if text.is_empty() {
            return Ok(Tsid::untagged(uuid));
        }
        let tag = std::str::from_utf8(text)
            .ok()
            .and_then(|text| Tag::new(text).ok())
            .filter(|tag| tag.as_str().as_bytes() == text)
            .ok_or_else(|| self.malformed("not a tag"))?;
        Ok(Tsid::new(uuid, Some(tag)))
    }

    fn intervals(&mut self, tsid: &Tsid, set: &mut GtidSet) -> Result<(), GtidError> {
        let mut last = 0;
        for _ in 0..self.u64()? {
            let (start, end) = (self.u64()?, self.u64()?);
            if start <= last || end <= start || end > MAX_GNO + 1 {
                return Err(self.malformed("intervals out of order or of range"));
            }
            set.insert_range(tsid, start..=end - 1);
            last = end;
        }
        Ok(())
    }
}
