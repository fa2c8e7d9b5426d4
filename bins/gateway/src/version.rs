//! Which gateway this is, in logs, metrics, `status` and `hello`.

/// Of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What it was built from: whatever stood in BELLWIRE_BUILD then, a commit for example (`scripts/package` sets it).
pub const BUILD: &str = match option_env!("BELLWIRE_BUILD") {
    Some(build) => build,
    None => "unnamed",
};
