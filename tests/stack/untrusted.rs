//! A TLS server with a certificate that it has signed itself.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

use super::PATIENCE;

/// The server: nobody trusts it, and behind the handshake is nothing.
pub struct Untrusted {
    address: SocketAddr,
    handshakes: Arc<Mutex<Handshakes>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How handshakes ended.
#[derive(Debug, Clone, Default)]
pub struct Handshakes {
    /// By success: a client that trusts anybody.
    pub completed: u64,
    /// By the client's alert or its leaving, with the words of the last.
    pub refused: u64,
    /// What the last refusal was.
    pub last_refusal: String,
}

impl Untrusted {
    /// Listen on a free port.
    pub fn start() -> Untrusted {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::new(Mutex::new(Handshakes::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (of_thread, ends) = (Arc::clone(&handshakes), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let ended = handshake(stream.unwrap(), &config);
                let mut handshakes = of_thread.lock().unwrap();
                match ended {
                    Ok(()) => handshakes.completed += 1,
                    Err(error) => {
                        handshakes.refused += 1;
                        handshakes.last_refusal = error.to_string();
                    }
                }
            }
        });
        Untrusted { address, handshakes, is_over, thread: Some(thread) }
    }

    /// Where batches are to be posted.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/shares", self.address.port())
    }

    /// How handshakes ended so far.
    pub fn handshakes(&self) -> Handshakes {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn handshake(mut stream: TcpStream, config: &Arc<ServerConfig>) -> io::Result<()> {
    let patience = Some(PATIENCE);
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(patience)?;
    let mut connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(())
}

impl Drop for Untrusted {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread up.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
