"""django-redis as Django's cache, and Django's own Redis cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import CacheHandler
from harness import Server, wait_until

KINDS = {
    "django-redis": {"BACKEND": "django_redis.cache.RedisCache"},
    "django-redis-zlib": {
        "BACKEND": "django_redis.cache.RedisCache",
        "OPTIONS": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"},
    },
    "django": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
}


@pytest.fixture(scope="module", autouse=True)
def django_settings() -> None:
    settings.configure(USE_TZ=True)


@pytest.fixture(params=list(KINDS))
def cache(request: pytest.FixtureRequest, app_server: Server) -> Iterator[Any]:
    location = f"redis://127.0.0.1:{app_server.port}/1"
    caches = CacheHandler({"default": {**KINDS[request.param], "LOCATION": location}})
    yield caches["default"]
    caches["default"].close()


def test_what_every_cache_of_django_can(cache: Any) -> None:
    value = {"text": "é" * 1000, "numbers": list(range(100))}
    cache.set("key", value)
    assert cache.get("key") == value
    assert cache.get("none", "default") == "default"
    assert not cache.add("key", "other") and cache.add("new", "other")
    assert cache.get_or_set("made", lambda: 41) == 41
    assert (cache.incr("made"), cache.decr("made", 40)) == (42, 2)
    with pytest.raises(ValueError):
        cache.incr("none")
    cache.set_many({f"many:{number}": number for number in range(500)}, timeout=60)
    found = cache.get_many([f"many:{number}" for number in range(0, 1000, 2)])
    assert found == {f"many:{number}": number for number in range(0, 500, 2)}
    cache.delete_many(found)
    assert cache.get("many:0") is None and cache.get("many:1") == 1
    assert cache.has_key("new") and cache.delete("new") and not cache.delete("new")
    cache.set("gone", 1, timeout=0)
    assert cache.get("gone") is None
    cache.set("short", 1, timeout=1)
    assert cache.touch("short", 100) and not cache.touch("none")
    cache.set("shorter", 1, timeout=1)
    wait_until(lambda: cache.get("shorter") is None)
    assert cache.get("short") == 1
    cache.set("versioned", 1, version=1)
    assert cache.incr_version("versioned") == 2
    assert (cache.get("versioned", version=2), cache.get("versioned", version=1)) == (1, None)
    cache.clear()
    assert cache.get("key") is None


@pytest.mark.parametrize("cache", ["django-redis", "django-redis-zlib"], indirect=True)
def test_what_only_django_redis_can(cache: Any) -> None:
    cache.set_many({f"page:{number}": number for number in range(3000)}, timeout=None)
    assert len(set(cache.iter_keys("page:*"))) == 3000
    assert len(cache.keys("page:1*")) == 1111
    assert cache.delete_pattern("page:1*", itersize=100) == 1111
    assert len(list(cache.iter_keys("*", itersize=500))) == 1889
    assert cache.ttl("page:2") is None and cache.ttl("none") == 0
    assert cache.expire("page:2", 100) and 0 < cache.ttl("page:2") <= 100
    assert cache.pexpire("page:2", 5000) and 0 < cache.pttl("page:2") <= 5000
    assert cache.persist("page:2") and cache.ttl("page:2") is None
    assert cache.set("page:2", "other", nx=True) is False
    with cache.lock("lock", timeout=5, blocking_timeout=1):
        assert not cache.lock("lock", blocking_timeout=0.05).acquire()
    started = time.monotonic()
    with cache.lock("lock", timeout=5):
        assert time.monotonic() - started < 5
