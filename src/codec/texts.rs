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
