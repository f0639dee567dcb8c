//! The little HTTP that asking a server takes: one request per connection.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// The body of a 200.
pub fn get(server: SocketAddr, path: &str) -> Result<String> {
    let (status, body) = ask(server, &format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n"))?;
    ensure!(status == 200, "{path}: {status}");
    Ok(body)
}

/// The body of a 200 to a call of a service (`RoomService/CreateRoom`), in JSON.
pub fn call(server: SocketAddr, token: &str, method: &str, argument: &serde_json::Value) -> Result<serde_json::Value> {
    let argument = argument.to_string();
    let head = format!(
        "POST /twirp/livekit.{method} HTTP/1.0\r\nHost: {server}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        argument.len()
    );
    let (status, body) = ask(server, &(head + &argument))?;
    ensure!(status == 200, "{method}: {status} {body}");
    Ok(serde_json::from_str(&body)?)
}

/// What a GET is answered with; `None` if it is not.
pub fn status(server: SocketAddr, path: &str) -> Option<u16> {
    ask(server, &format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")).ok().map(|(status, _)| status)
}

fn ask(server: SocketAddr, request: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")?;
    Ok((status, body.to_owned()))
}

const PATIENCE: Duration = Duration::from_secs(2);
