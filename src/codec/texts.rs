//! All texts of a notification packed into one string, with the end of each as a `u16`.
//!
//! The first two are the envelope's: user id and source. The marks are checked once on access; reading a text behind a
//! wrong mark gives an empty text, so nothing here needs unsafe code.

use rkyv::Place;
use rkyv::boxed::{ArchivedBox, BoxResolver};
use rkyv::primitive::{ArchivedU16, ArchivedUsize};
use rkyv::rancor::Fallible;
use rkyv::ser::{Positional, Writer};
use rkyv::with::{ArchiveWith, SerializeWith};

use crate::notification::USER_ID_BYTES_MAX;

/// How many texts stand before the payload's own: user id and source.
pub(crate) const ENVELOPE: usize = 2;

/// The largest end mark: more than fits into a record.
pub(crate) const END_MAX: usize = u16::MAX as usize;

/// The end of each text in the packed string. The total must not exceed [`END_MAX`].
#[inline]
pub(crate) fn ends<const N: usize>(texts: &[&str; N]) -> [u16; N] {
    let mut end = 0usize;
    std::array::from_fn(|index| {
        end += texts[index].len();
        debug_assert!(end <= END_MAX);
        end as u16
    })
}

/// How many bytes the texts have together.
#[inline]
pub(crate) fn len(texts: &[&str]) -> usize {
    texts.iter().map(|text| text.len()).sum()
}

/// Text number `index` of an archive.
#[inline]
pub(crate) fn get<'a>(ends: &[ArchivedU16], packed: &'a ArchivedBox<str>, index: usize) -> &'a str {
    let start = if index == 0 { 0 } else { ends[index - 1].to_native() };
    let end = ends[index].to_native();
    packed.get().get(usize::from(start)..usize::from(end)).unwrap_or_default()
}

/// Whether the marks cut the string into texts: in order, between characters, up to its end; and whether the user id
/// has an allowed length.
#[inline]
pub(crate) fn are_sound(ends: &[ArchivedU16], packed: &ArchivedBox<str>) -> bool {
    let packed: &str = packed.get();
    let mut start = 0;
    for end in ends {
        let end = usize::from(end.to_native());
        if end < start || !packed.is_char_boundary(end) {
            return false;
        }
        start = end;
    }
    let user_id = ends.first().map_or(0, |end| usize::from(end.to_native()));
    start == packed.len() && (1..=USER_ID_BYTES_MAX).contains(&user_id)
}

/// Archives several texts as one packed `Box<str>`.
pub(crate) struct Joined;

impl<'a, const N: usize> ArchiveWith<[&'a str; N]> for Joined {
    type Archived = ArchivedBox<str>;
    type Resolver = BoxResolver;

    #[inline]
    fn resolve_with(texts: &[&'a str; N], resolver: Self::Resolver, out: Place<Self::Archived>) {
        let len = ArchivedUsize::from_native(len(texts) as _);
        ArchivedBox::resolve_from_raw_parts(resolver, len, out);
    }
}

impl<'a, S, const N: usize> SerializeWith<[&'a str; N], S> for Joined
where
    S: Fallible + Positional + Writer + ?Sized,
{
    #[inline]
    fn serialize_with(texts: &[&'a str; N], serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        let resolver = BoxResolver::from_pos(serializer.pos());
        for text in texts {
            serializer.write(text.as_bytes())?;
        }
        Ok(resolver)
    }
}

#[cfg(test)]
mod tests {
    use crate::notification::{Level, Notification, PayloadView, SystemNotice};
    use crate::record::{RECORD_HEADER_LEN, RecordHeader, to_record};

    /// The texts that are read where these marks stand instead of the right ones; none if that is refused. The user is
    /// not checked against the header's hash.
    fn read([user_id, source, title, content]: [&str; 4], marks: [u16; 4]) -> Option<[String; 4]> {
        let notice = SystemNotice { title, content, level: Level::Info, timestamp: 0 };
        let record = to_record(&Notification::new(user_id, source, notice), 1, 0, 0).unwrap();
        let header = RecordHeader::from_bytes(record[..RECORD_HEADER_LEN].try_into().unwrap());
        let mut archive = record[RECORD_HEADER_LEN..][..header.archive_len as usize].to_vec();
        let bytes = |marks: [u16; 4]| marks.map(u16::to_le_bytes).concat();
        let right = bytes(super::ends(&[user_id, source, title, content]));
        let at = archive.windows(8).rposition(|window| window == right).expect("the marks");
        archive[at..at + 8].copy_from_slice(&bytes(marks));
        let (message_type, _) = header.check().unwrap();
        let payload = PayloadView::access(message_type, &archive)?;
        let PayloadView::SystemNotice(notice) = &payload else { panic!("a notice") };
        let texts = [payload.envelope_user_id(), payload.envelope_source(), notice.title(), notice.content()];
        Some(texts.map(str::to_owned))
    }

    #[test]
    fn marks_cut_the_string_into_texts_or_are_refused() {
        let texts = ["user", "Test", "h\u{e9}", "content"];
        assert_eq!(super::len(&texts), 18);
        let read = |marks| read(texts, marks);
        assert_eq!(read([4, 8, 11, 18]).unwrap(), texts);
        assert_eq!(read([1, 1, 11, 18]).unwrap(), ["u", "", "serTesth\u{e9}", "content"]);
        assert_eq!(read([9, 8, 11, 18]), None, "the second ends before the first");
        assert_eq!(read([4, 8, 10, 18]), None, "within a character");
        assert_eq!(read([4, 8, 11, 17]), None, "not up to the end");
        assert_eq!(read([4, 8, 11, 19]), None, "beyond the end");
        assert_eq!(read([0, 8, 11, 18]), None, "a notification for nobody");
    }

    #[test]
    fn a_user_id_is_not_longer_than_is_allowed() {
        let user = "u".repeat(128);
        let read = |marks| read([&user, "Test", "t", "c"], marks);
        assert!(read([128, 132, 133, 134]).is_some());
        assert_eq!(read([129, 132, 133, 134]), None);
    }
}
