//! The login on a new connection: a mechanism, and its tokens back and forth.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::ExposeSecret;
use tine_core::failure::Failure;

use super::{
    connection::Connection,
    errors,
    message::{
        Api,
        sasl::{self, Mechanisms, Token},
    },
    scram::{Hash, Scram},
    settings::{Login, Mechanism},
    trouble::Trouble,
};

/// Logs in; how long that holds, when the broker says so. A refusal is final.
pub(crate) fn login(
    connection: &mut Connection,
    who: &Login,
    deadline: Instant,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Duration>, Trouble> {
    let name = who.mechanism.name();
    let answer = connection.ask(Api::SaslHandshake, |put, _| sasl::ask_mechanism(put, name), deadline, cancelled)?;
    let offered = Mechanisms::read(&mut answer.take())?;
    if offered.error != errors::NONE {
        let (code, offered) = (errors::words(offered.error), offered.offered.join(", "));
        return Err(refused(
            connection,
            who,
            &format!("{code}; it offers {offered}: set sasl.mechanism to one of them"),
        ));
    }
    let mut exchange = Exchange { connection, who, deadline, cancelled };
    let lifetime_ms = match who.mechanism {
        Mechanism::Plain => exchange.plain()?,
        Mechanism::ScramSha256 => exchange.scram(Hash::Sha256)?,
        Mechanism::ScramSha512 => exchange.scram(Hash::Sha512)?,
    };
    Ok(u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis))
}

struct Exchange<'e> {
    connection: &'e mut Connection,
    who: &'e Login,
    deadline: Instant,
    cancelled: &'e dyn Fn() -> bool,
}

impl Exchange<'_> {
    /// RFC 4616.
    fn plain(&mut self) -> Result<i64, Trouble> {
        let token = format!("\0{}\0{}", self.who.user, self.who.password.expose_secret());
        Ok(self.token(token.as_bytes())?.lifetime_ms)
    }

    fn scram(&mut self, hash: Hash) -> Result<i64, Trouble> {
        let mut random = [0; 24];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| Trouble::Away("the system gives no random numbers".into()))?;
        let mut scram = Scram::new(hash, &self.who.user, BASE64.encode(random));
        let first = self.token(scram.first().as_bytes())?;
        let second = scram.second(&first.token, &self.who.password).map_err(|why| self.refused(&why))?;
        let last = self.token(second.as_bytes())?;
        scram.finish(&last.token).map_err(|why| self.refused(&why))?;
        Ok(last.lifetime_ms)
    }

    fn token(&mut self, token: &[u8]) -> Result<Token, Trouble> {
        let Exchange { connection, deadline, cancelled, .. } = self;
        let answer =
            connection.ask(Api::SaslAuthenticate, |put, _| sasl::ask_token(put, token), *deadline, *cancelled)?;
        let answer = Token::read(&mut answer.take())?;
        match answer.error {
            errors::NONE => Ok(answer),
            code => Err(self.refused(&format!("{} {}", errors::words(code), answer.message))),
        }
    }

    fn refused(&self, why: &str) -> Trouble {
        refused(self.connection, self.who, why)
    }
}

fn refused(connection: &Connection, who: &Login, why: &str) -> Trouble {
    Trouble::Refused(Failure::fatal(format!(
        "kafka at {} does not accept user {:?} by {}: {why} (check sasl.username and sasl.password)",
        connection.address(),
        who.user,
        who.mechanism.name()
    )))
}
