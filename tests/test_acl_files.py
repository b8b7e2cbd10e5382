"""Users in files: `user` in the configuration, aclfile, what a start refuses, CONFIG REWRITE."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis
from acl_servers import logged_in
from conftest import FreshServer
from harness import REDIS, Server, free_port

from kvserver import config_file
from kvserver.config import ConfigError

DEFAULT_USER = "user default on nopass sanitize-payload ~* &* +@all"
HASH = "148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940"  # of p


def listed(server: Server) -> list[str]:
    found: list[str] = server.client(decode_responses=True).acl_list()
    return found


def refusal(tmp_path: Path, text: str, **directives: str) -> str:
    """The line with which a start with this configuration ends."""
    conf = tmp_path / "kvserver.conf"
    conf.write_text(text)
    command = [sys.executable, "-m", "kvserver", str(conf), "--dir", str(tmp_path / "data")]
    command += ["--port", str(free_port()), "--bind", "127.0.0.1"]
    for name, value in directives.items():
        command += [f"--{name}", value]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert not (tmp_path / "data").exists()
    (line,) = done.stderr.splitlines()
    return line


# -- the configuration -------------------------------------------------------------------------

USERS = """\
requirepass secret
user alice on >p ~alice:* (%R~all:* +@read)
user default on #{hash} ~* +@all
user bob off nopass
user odd on nopass "~a\\"b" "&it's" +get|x
""".replace("{hash}", HASH)  # fmt: skip


def test_users_of_the_configuration(tmp_path: Path, fresh_server: FreshServer) -> None:
    conf = tmp_path / "kvserver.conf"
    conf.write_text(USERS)
    server = fresh_server(args=(str(conf),))
    conn = logged_in(server, "default")
    client = server.client(decode_responses=True, password="p")
    expected = [
        f"user alice on sanitize-payload #{HASH} ~alice:* resetchannels -@all "
        "(%R~all:* resetchannels -@all +@read)",
        "user bob off nopass sanitize-payload resetchannels -@all",
        f"user default on sanitize-payload #{HASH} ~* resetchannels +@all",
        "user odd on nopass sanitize-payload ~a\"b resetchannels &it's -@all +get|x",
    ]
    assert client.acl_list() == expected
    assert conn.ask("AUTH", "secret").startswith(b"-WRONGPASS")
    assert "The user 'bob' is disabled" in server.log_text()

    # CONFIG knows them only for REWRITE.
    assert client.config_get("user") == {}
    with pytest.raises(redis.ResponseError, match="Unknown option"):
        client.config_set("user", "x")
    client.acl_deluser("bob")
    client.execute_command("ACL SETUSER carol on >p")
    client.config_rewrite()
    text = conf.read_text()
    assert [line.split()[1] for line in text.splitlines() if line.startswith("user ")] == [
        *("alice", "carol", "default", "odd")
    ]
    assert "bob" not in text and " >p" not in text
    before = client.acl_list()
    server.close_clients()
    server.restart()
    assert server.client(decode_responses=True, password="p").acl_list() == before


def test_rewrite_says_nothing_of_a_usual_default_user(
    tmp_path: Path, fresh_server: FreshServer
) -> None:
    conf = tmp_path / "kvserver.conf"
    conf.write_text("timeout 5\nuser default on nopass ~* &* +@all\n")
    server = fresh_server(args=(str(conf),))
    client = server.client()
    client.config_rewrite()
    assert "user" not in conf.read_text()
    client.execute_command("ACL SETUSER default -flushall")
    client.config_rewrite()
    assert f"{DEFAULT_USER} -flushall\n" in conf.read_text()
    client.execute_command("ACL SETUSER default +@all")
    client.config_rewrite()
    assert "user" not in conf.read_text()


def test_users_of_the_command_line(fresh_server: FreshServer) -> None:
    server = fresh_server(
        args=("--user", "al", "on", "nopass", "+@all"), acl_pubsub_default="allchannels"
    )
    assert listed(server)[0] == "user al on nopass sanitize-payload &* +@all"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "user alice on +nope",
            "Error in ACL rule '+nope': Unknown command or category name in ACL",
        ),
        ("user alice on bogus", "Error in ACL rule 'bogus': Syntax error"),
        ("user alice #secret", "Error in ACL rule '#...': The password hash must be exactly 64"),
        ("user alice <secret", "Error in ACL rule '<...': The password you are trying to remove"),
        ("user alice (+get", "Unmatched parenthesis in acl selector starting at '(+get'."),
        ('user "al ice" on', "Spaces not allowed in ACL usernames"),
        ("user", "wrong number of arguments"),
        ("user bob on\nuser bob off", "Duplicate user found. A user can only be defined once in "),
    ],
)
def test_a_wrong_user_is_refused_with_its_line(line: str, reason: str, tmp_path: Path) -> None:
    told = refusal(tmp_path, f"timeout 1\n{line}\n")
    number = 1 + len(line.splitlines())
    where = f"kvserver: {tmp_path}/kvserver.conf line {number}: 'user"
    assert told.startswith(where) and reason in told and "secret" not in told


def test_users_in_two_places_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "users.acl"
    file.write_text("user alice on nopass\n")
    assert refusal(tmp_path, f"user bob on\naclfile {file}\n") == (
        "kvserver: users are given by `user` in the configuration and by aclfile: use one of the "
        "two"
    )


# -- aclfile -----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["ours", "theirs"])
def test_aclfile(program: str, tmp_path: Path, fresh_server: FreshServer) -> None:
    file = tmp_path / "users.acl"
    file.write_text("user alice on >p ~a* (+get)\n\nuser default on nopass +@all ~* &*\n")
    directives = {"program": REDIS} if program == "theirs" else {}
    server = fresh_server(aclfile=str(file), **directives)  # type: ignore[arg-type]
    client = server.client(decode_responses=True)
    before = client.acl_list()
    assert [line.split()[1] for line in before] == ["alice", "default"]
    client.execute_command("ACL SETUSER bob on nopass +@all")
    assert client.acl_load()
    assert client.acl_list() == before
    client.execute_command("ACL SETUSER bob on nopass +@read ~b &b")
    client.acl_deluser("alice")
    assert client.acl_save()
    saved = client.acl_list()
    assert file.read_text() == "".join(line + "\n" for line in saved)
    client.acl_deluser("bob")
    assert client.acl_load()
    assert client.acl_list() == saved
    server.close_clients()
    server.restart()
    assert listed(server) == saved

    file.write_text("user alice on\nuser alice off\nbogus\nuser bob +nope %x\n")
    with pytest.raises(redis.ResponseError) as caught:
        server.client().execute_command("ACL LOAD")
    assert str(caught.value) == (
        f"WARNING: Duplicate user 'alice' found on line 2. {file}:3 should start with user keyword "
        f"followed by the username. {file}:4: Error in applying operation '+nope': Unknown command "
        f"or category name in ACL. {file}:4: Syntax error. WARNING: ACL errors detected, no change "
        "to the previously active ACL rules was performed"
    )
    file.unlink()
    with pytest.raises(redis.ResponseError) as caught:
        server.client().execute_command("ACL LOAD")
    assert str(caught.value) == (
        f"Error loading ACLs, opening file '{file}': No such file or directory"
    )
    assert listed(server) == saved


def test_a_bad_aclfile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "users.acl"
    told = refusal(tmp_path, "", aclfile=str(file))
    assert told == f"kvserver: Error loading ACLs, opening file '{file}': No such file or directory"
    file.write_text("user alice on\nuser bob +nope\n")
    assert refusal(tmp_path, "", aclfile=str(file)).startswith(
        f"kvserver: {file}:2: Error in applying operation '+nope': Unknown command or category"
    )


def test_load_ends_only_who_lost_something(tmp_path: Path, fresh_server: FreshServer) -> None:
    """7.4; 7.0 ends all connections but those of the default user."""
    file = tmp_path / "users.acl"
    file.write_text(
        "user default on nopass ~* &* +@all\nuser gone on >p +@all\nuser less on >p +@all &*\n"
        "user same on >p +@all &x\n"
    )
    server = fresh_server(aclfile=str(file))
    users = ("gone", "less", "same", "default")
    conns = {(user, kind): logged_in(server, user) for user in users for kind in ("idle", "sub")}
    for (_, kind), conn in conns.items():
        conn.ask(*(["SUBSCRIBE", "x"] if kind == "sub" else ["PING"]))
    file.write_text("user less on >p +@all &y\nuser same on >p +ping +acl|whoami +subscribe &x\n")
    assert server.client().acl_load()
    open_now = set()
    for who, conn in conns.items():
        try:
            conn.ask("PING")
            open_now.add(who)
        except ConnectionError:
            pass
    assert open_now == {("less", "idle"), ("same", "idle"), ("same", "sub"), ("default", "idle"),
                        ("default", "sub")}  # fmt: skip
    assert conns["same", "idle"].ask("GET", "k").startswith(b"-NOPERM")
    assert conns["less", "idle"].ask("ACL", "WHOAMI") == b"$4\r\nless\r\n"


def test_requirepass_beside_an_aclfile_is_ignored(
    tmp_path: Path, fresh_server: FreshServer
) -> None:
    """As in Redis: the file, or what a server without configuration has, says who the default user
    is. It is logged."""
    file = tmp_path / "users.acl"
    file.write_text("user alice on nopass\n")
    server = fresh_server(aclfile=str(file), requirepass="secret")
    assert DEFAULT_USER in listed(server)
    assert "requirepass is ignored" in server.log_text()


def test_a_file_that_cant_be_written(tmp_path: Path, fresh_server: FreshServer) -> None:
    file = tmp_path / "there" / "users.acl"
    file.parent.mkdir()
    file.write_text("user default on nopass ~* &* +@all\n")
    server = fresh_server(aclfile=str(file))
    file.unlink()
    file.parent.rmdir()
    with pytest.raises(redis.ResponseError, match="There was an error trying to save the ACLs"):
        server.client().execute_command("ACL SAVE")
    assert "No such file or directory" in server.log_text()


# -- the configuration's text ------------------------------------------------------------------


def load(text: str) -> config_file.Config:
    return config_file.load(["-"], lambda: text)


def rewritten(text: str, *users: tuple[str, ...]) -> str:
    config = load(text)
    config.assign("user", users)
    return config_file.rewritten(config, text)


def test_rewriting_keeps_places_and_order() -> None:
    text = "# users\nuser a on\n# more\nuser b off\ntimeout 1\n"
    assert rewritten(text, ("a", "on"), ("b", "off")) == text
    assert rewritten(text) == "# users\n# more\ntimeout 1\n"
    assert rewritten(text, ("a", "on"), ("c", "on", "~x")) == (
        "# users\nuser a on\nuser c on ~x\n# more\ntimeout 1\n"
    )
    signature = config_file.SIGNATURE
    assert rewritten("timeout 1\n", ("a", "on"), ("", "off")) == (
        f'timeout 1\n{signature}\nuser a on\nuser "" off\n'
    )


def test_a_user_stands_once() -> None:
    with pytest.raises(ConfigError, match=r"line 2: 'user .*Duplicate user found"):
        load("user a on\nuser a off\n")
