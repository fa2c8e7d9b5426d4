//! The fixed words that payload fields may hold: enums here, one byte in shared memory, words in JSON.

/// A field whose values are a fixed set of words.
pub trait Word: Copy + Sized + 'static {
    /// Every value.
    const ALL: &'static [Self];
    /// The word as it stands in JSON, for example `BUY`.
    fn as_str(self) -> &'static str;
    /// The value of that word; `None` if there is no such word. Words are case-sensitive.
    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == word)
    }
}

macro_rules! words {
    ($(
        $(#[$doc:meta])*
        $name:ident, $archived:ident { $( $(#[$vdoc:meta])* $variant:ident = $word:literal ),+ $(,)? }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, rkyv::Archive, rkyv::Serialize)]
        #[rkyv(attr(doc = "The archived form: one byte."), attr(allow(missing_docs)))]
        #[repr(u8)]
        pub enum $name { $( $(#[$vdoc])* #[doc = concat!("`", $word, "` in JSON.")] $variant ),+ }

        impl Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            #[inline]
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl From<&$archived> for $name {
            #[inline]
            fn from(archived: &$archived) -> Self {
                match archived { $($archived::$variant => Self::$variant),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

words! {
    /// Which side of the market.
    Direction, ArchivedDirection { Buy = "BUY", Sell = "SELL" }
    /// Whether a trade opens or closes a position.
    Offset, ArchivedOffset { Open = "OPEN", Close = "CLOSE" }
    /// How an order is priced.
    OrderType, ArchivedOrderType { Limit = "LIMIT", Market = "MARKET" }
    /// Whether a trade completed its order.
    FillType, ArchivedFillType { Full = "FULL", Partial = "PARTIAL" }
    /// What a risk alert is about.
    AlertType, ArchivedAlertType {
        MarginInsufficient = "MARGIN_INSUFFICIENT",
        PositionLimit = "POSITION_LIMIT",
    }
    /// How bad a risk alert is.
    Severity, ArchivedSeverity { Warning = "WARNING", Critical = "CRITICAL", Emergency = "EMERGENCY" }
    /// How bad a system notice is.
    Level, ArchivedLevel { Info = "INFO", Warning = "WARNING", Error = "ERROR" }
    /// Who holds an account. In JSON a number: 0 a person, 1 an institution.
    AccountType, ArchivedAccountType { Person = "0", Institution = "1" }
}
