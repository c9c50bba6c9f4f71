//! Where the database is: the URL, parsed at once, and never printed with its password.

use std::{fmt, str::FromStr};

use sqlx::{ConnectOptions, postgres::PgConnectOptions};

/// A URL that does not name a database. The message never holds the URL itself: it may contain a password.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Another scheme, or none.
    #[error("the database URL must start with postgres:// or postgresql://, as in postgres://user@host:5432/database")]
    Scheme,
    /// A parameter after `?` that means nothing: a misspelt one would silently do nothing.
    #[error("the database URL has the unknown parameter {name:?}; known are {}", PARAMETERS.join(", "))]
    Parameter {
        /// The parameter's name, without its value.
        name: String,
    },
    /// Not a URL, or a parameter with an impossible value.
    #[error(
        "the database URL cannot be read ({reason}); it looks like postgres://user@host:5432/database?sslmode=require"
    )]
    Invalid {
        /// Why.
        reason: String,
    },
}

/// As people read it: a `main` that returns an error prints its `Debug`.
impl fmt::Debug for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many statements a connection keeps prepared: each state has up to nine.
const STATEMENTS_KEPT: usize = 1_000;

const PARAMETERS: &[&str] = &[
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];

/// A parsed URL.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) options: PgConnectOptions,
    description: String,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Address, AddressError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(AddressError::Scheme);
        }
        let query = url.split('#').next().and_then(|url| url.split_once('?')).map_or("", |(_, query)| query);
        for name in query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next().unwrap_or("")) {
            if !PARAMETERS.contains(&name) && !name.starts_with("options[") && !name.starts_with("options%5B") {
                return Err(AddressError::Parameter { name: name.to_string() });
            }
        }
        let options =
            PgConnectOptions::from_str(url).map_err(|error| AddressError::Invalid { reason: plain(&error) })?;
        let options = options.disable_statement_logging().statement_cache_capacity(STATEMENTS_KEPT);
        let description = describe(&options);
        Ok(Address { options, description })
    }

    /// The role that connections log in as.
    pub(crate) fn user(&self) -> &str {
        self.options.get_username()
    }
}

fn plain(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

fn describe(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("postgres at {} port {}/{database}", socket.display(), options.get_port()),
        None => format!("postgres at {}:{}/{database}", options.get_host(), options.get_port()),
    }
}

/// Host, port and database.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_never_printed() {
        let address = Address::parse("postgres://u:s3cret@db.example:6432/shop?sslmode=disable").unwrap();
        assert_eq!(address.to_string(), "postgres at db.example:6432/shop");
        for wrong in [
            "postgres://u:s3cret@db.example:port/shop",
            "postgres://u:s3cret@[::1/shop",
            "postgres://u:s3cret@h/shop?sslmode=sometimes",
            "postgres://u@h/shop?pasword=s3cret",
            "mysql://u:s3cret@h/shop",
            "u:s3cret@h/shop",
        ] {
            let error = Address::parse(wrong).err().unwrap_or_else(|| panic!("{wrong} was accepted"));
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
    }
}
