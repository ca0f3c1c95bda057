//! Tokens signed with the keys of an identity provider.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use aws_types::SdkConfig;
use base64::Engine;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use lambda_http::http::HeaderMap;
use runtime::api::authentication::JwtVerifier;
use runtime::config::Environment;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn now() -> Timestamp {
    Timestamp::from_second(1_760_000_000).expect("an instant")
}

/// A server that publishes a key set and counts how often it is asked.
struct Provider {
    url: String,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(keys: Vec<Value>) -> Provider {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let keys = Arc::new(Mutex::new(keys));
        let asked = Arc::new(AtomicUsize::new(0));
        let (published, count) = (keys.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 4096];
                if socket.read(&mut request).await.is_err() {
                    continue;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let body = json!({"keys": *published.lock().expect("keys")}).to_string();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        });
        Provider { url, keys, asked }
    }

    fn verifier(&self) -> JwtVerifier {
        let environment = Environment::from_pairs([("ADMIN_JWKS_URL", &self.url)]);
        JwtVerifier::from_env(&environment, &SdkConfig::builder().build())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A private key and its entry in the set.
struct Key {
    private: EncodingKey,
    algorithm: Algorithm,
    id: &'static str,
    entry: Value,
}

impl Key {
    fn es256(id: &'static str) -> Key {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let der = der.expect("a key");
        Key::new(EncodingKey::from_ec_der(der.as_ref()), Algorithm::ES256, id)
    }

    fn rs256(id: &'static str) -> Key {
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der = AsDer::<Pkcs8V1Der>::as_der(&pair).expect("its form");
        let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        let private = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a private key");
        Key::new(private, Algorithm::RS256, id)
    }

    fn new(private: EncodingKey, algorithm: Algorithm, id: &'static str) -> Key {
        let mut public = Jwk::from_encoding_key(&private, algorithm).expect("a public key");
        public.common.key_id = Some(id.to_owned());
        let entry = serde_json::to_value(public).expect("JSON");
        Key {
            private,
            algorithm,
            id,
            entry,
        }
    }

    fn bearer(&self, key_id: Option<&str>) -> HeaderMap {
        let mut header = Header::new(self.algorithm);
        header.kid = key_id.map(str::to_owned);
        let claims = json!({"exp": 9_999_999_999_i64, "role": "admin", "sub": "u1"});
        let token = jsonwebtoken::encode(&header, &claims, &self.private).expect("a token");
        headers(&format!("Bearer {token}"))
    }
}

fn headers(authorization: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", authorization.parse().expect("a header"));
    headers
}

async fn status(verifier: &JwtVerifier, headers: &HeaderMap, at: Timestamp) -> u16 {
    match verifier.authenticate(headers, at).await {
        Ok(principal) => {
            assert_eq!(principal.subject.as_deref(), Some("u1"));
            200
        }
        Err(error) => error.status().as_u16(),
    }
}

#[tokio::test]
async fn tokens_of_published_keys_hold_and_the_set_is_fetched_once() {
    let (ec, rsa) = (Key::es256("ec"), Key::rs256("rsa"));
    let stranger = Key::es256("ec");
    let exotic = json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "pq", "pub": "AA"});
    let provider = Provider::start(vec![exotic, ec.entry.clone(), rsa.entry.clone()]).await;
    let verifier = provider.verifier();
    assert_eq!(status(&verifier, &ec.bearer(Some("ec")), now()).await, 200);
    assert_eq!(
        status(&verifier, &rsa.bearer(Some("rsa")), now()).await,
        200
    );
    assert_eq!(
        status(&verifier, &rsa.bearer(None), now()).await,
        200,
        "no id, one that fits"
    );
    assert_eq!(provider.asked(), 1);
    assert_eq!(
        status(&verifier, &stranger.bearer(Some("ec")), now()).await,
        401
    );
    assert_eq!(status(&verifier, &rsa.bearer(Some("ec")), now()).await, 401);
    assert_eq!(provider.asked(), 1, "not again within seconds");
}

#[tokio::test]
async fn a_public_key_is_no_secret_to_sign_with() {
    let rsa = Key::rs256("rsa");
    let provider = Provider::start(vec![rsa.entry.clone()]).await;
    let public = rsa.entry["n"].as_str().expect("a modulus").as_bytes();
    let claims = json!({"exp": 9_999_999_999_i64, "role": "admin"});
    let key = EncodingKey::from_secret(public).unwrap();
    let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    let verifier = provider.verifier();
    assert_eq!(
        status(&verifier, &headers(&format!("Bearer {forged}")), now()).await,
        401
    );
}

#[tokio::test]
async fn a_new_key_is_found_and_a_provider_that_is_away_stops_nobody_known() {
    let (old, new) = (Key::es256("old"), Key::es256("new"));
    let provider = Provider::start(vec![old.entry.clone()]).await;
    let verifier = provider.verifier();
    assert_eq!(
        status(&verifier, &old.bearer(Some(old.id)), now()).await,
        200
    );
    provider.keys.lock().expect("keys").push(new.entry.clone());
    let soon = now() + SignedDuration::from_secs(9);
    assert_eq!(
        status(&verifier, &new.bearer(Some(new.id)), soon).await,
        401,
        "asked just now"
    );
    let later = now() + SignedDuration::from_secs(10);
    assert_eq!(
        status(&verifier, &new.bearer(Some(new.id)), later).await,
        200
    );
    assert_eq!(provider.asked(), 2);
    // A key that was withdrawn no longer holds once the set is fetched again.
    provider.keys.lock().expect("keys").remove(0);
    let expired = later + SignedDuration::from_mins(5);
    assert_eq!(
        status(&verifier, &old.bearer(Some(old.id)), expired).await,
        401
    );
}

#[tokio::test]
async fn a_provider_that_was_never_reached_is_a_503() {
    let key = Key::es256("ec");
    let environment = Environment::from_pairs([("ADMIN_JWKS_URL", "http://127.0.0.1:1/keys")]);
    let verifier = JwtVerifier::from_env(&environment, &SdkConfig::builder().build());
    for _ in 0..2 {
        assert_eq!(status(&verifier, &key.bearer(None), now()).await, 503);
    }
}
