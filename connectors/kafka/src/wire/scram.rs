//! SCRAM (RFC 5802, RFC 7677): a password is proved to the broker, and the broker proves that it knows it too.
//!
//! Pure: [`Scram::first`], [`Scram::second`] and [`Scram::finish`] turn the broker's messages into ours. Channel binding
//! is not used, as with Kafka's other clients.

use std::num::NonZeroU32;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::{digest, hmac, pbkdf2};
use secrecy::{ExposeSecret, SecretString};

/// What a broker may ask for: fewer iterations protect nothing, more keep us busy for its pleasure.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;

/// The hash of a mechanism.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        self.hmac().digest_algorithm()
    }
}

/// One login under way.
pub(crate) struct Scram {
    hash: Hash,
    nonce: String,
    /// Our first message without its head.
    first_bare: String,
    /// What the broker must sign, and with which key.
    signed: Option<(hmac::Key, String)>,
}

impl Scram {
    /// `nonce` is new and random for each login, in printable characters without a comma.
    pub(crate) fn new(hash: Hash, user: &str, nonce: String) -> Scram {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Scram { hash, nonce, first_bare, signed: None }
    }

    /// Our first message.
    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// The answer to the broker's first message: the proof. Errors say what is wrong with the broker's message.
    pub(crate) fn second(&mut self, server_first: &[u8], password: &SecretString) -> Result<String, String> {
        let server_first = text(server_first)?;
        let nonce = attribute(server_first, 'r')?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the broker's nonce does not go on from ours".into());
        }
        let salt = BASE64.decode(attribute(server_first, 's')?).map_err(|_| "the salt is not base64".to_string())?;
        let asked: u32 =
            attribute(server_first, 'i')?.parse().map_err(|_| "the iterations are no number".to_string())?;
        let iterations = NonZeroU32::new(asked).filter(|_| ITERATIONS.contains(&asked));
        let iterations = iterations.ok_or_else(|| {
            format!("{asked} iterations are outside of {}..={}", ITERATIONS.start(), ITERATIONS.end())
        })?;
        let without_proof = format!("c=biws,r={nonce}");
        let message = format!("{},{server_first},{without_proof}", self.first_bare);
        let (proof, server_key) = self.proof(password, &salt, iterations, &message);
        self.signed = Some((server_key, message));
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)))
    }

    fn proof(
        &self,
        password: &SecretString,
        salt: &[u8],
        iterations: NonZeroU32,
        message: &str,
    ) -> (Vec<u8>, hmac::Key) {
        let mut salted = vec![0; self.hash.digest().output_len()];
        pbkdf2::derive(self.hash.pbkdf2(), iterations, salt, password.expose_secret().as_bytes(), &mut salted);
        let salted = hmac::Key::new(self.hash.hmac(), &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let signature = hmac::sign(&hmac::Key::new(self.hash.hmac(), stored_key.as_ref()), message.as_bytes());
        let proof = client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
        (proof, hmac::Key::new(self.hash.hmac(), hmac::sign(&salted, b"Server Key").as_ref()))
    }

    /// Checks the broker's last message: whether it knows the password too.
    pub(crate) fn finish(&self, server_final: &[u8]) -> Result<(), String> {
        let server_final = text(server_final)?;
        if let Ok(error) = attribute(server_final, 'e') {
            return Err(format!("the broker refuses: {error}"));
        }
        let claimed =
            BASE64.decode(attribute(server_final, 'v')?).map_err(|_| "the signature is not base64".to_string())?;
        let (key, message) = self.signed.as_ref().ok_or("the broker signs before we have proved anything")?;
        hmac::verify(key, message.as_bytes(), &claimed)
            .map_err(|_| "the broker does not know this password either: it may be an impostor".into())
    }
}

fn text(message: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(message).map_err(|_| "the broker's message is not UTF-8".into())
}

fn attribute(message: &str, name: char) -> Result<&str, String> {
    let found = message.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    found.ok_or_else(|| format!("the broker's message has no {name}="))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc_is_computed() {
        let mut scram = Scram::new(Hash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let second = scram.second(server, &"pencil".into()).unwrap();
        assert_eq!(
            second,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram.finish(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        let impostor = scram.finish(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap_err();
        assert!(impostor.contains("impostor"), "{impostor}");
        assert!(scram.finish(b"e=invalid-proof").unwrap_err().contains("invalid-proof"));
    }

    #[test]
    fn what_a_broker_must_not_ask_is_refused() {
        let ask = |message: &str| Scram::new(Hash::Sha512, "u", "abc".into()).second(message.as_bytes(), &"p".into());
        assert!(ask("r=abcd,s=QUJD,i=4096").is_ok());
        for (message, words) in [
            ("r=xyz,s=QUJD,i=4096", "nonce"),
            ("r=abc,s=QUJD,i=4096", "nonce"),
            ("r=abcd,s=QUJD,i=1", "iterations"),
            ("r=abcd,s=QUJD,i=4000000000", "iterations"),
            ("r=abcd,s=!,i=4096", "base64"),
            ("r=abcd,i=4096", "s="),
            ("", "r="),
        ] {
            let why = ask(message).unwrap_err();
            assert!(why.contains(words), "{message}: {why}");
        }
        let unproved = Scram::new(Hash::Sha256, "u", "abc".into());
        assert!(unproved.finish(b"v=QUJD").is_err());
    }

    #[test]
    fn separators_in_a_user_name_are_escaped() {
        assert_eq!(Scram::new(Hash::Sha256, "a=b,c", "n".into()).first(), "n,,n=a=3Db=2Cc,r=n");
    }
}
