"""Token buckets."""

from __future__ import annotations

from stationmaster_server.resilience.rate_limit import TokenBucket, TokenBuckets


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 3, clock)
    assert [bucket.take() for _ in range(3)] == [0, 0, 0]
    assert bucket.take() == 0.1
    clock.now = 0.1
    assert bucket.take() == 0
    assert bucket.take() > 0


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 2, clock)
    clock.now = 1000
    assert [bucket.take() == 0 for _ in range(3)] == [True, True, False]


def test_a_rate_of_zero_never_refuses() -> None:
    bucket = TokenBucket(0, 1, Clock())
    assert all(bucket.take() == 0 for _ in range(100))


def test_each_key_has_a_bucket_of_its_own() -> None:
    buckets: TokenBuckets[str] = TokenBuckets(1, 1, clock=Clock())
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    assert buckets.take("b") == 0


def test_keys_that_are_full_again_are_forgotten_and_others_kept() -> None:
    clock = Clock()
    buckets: TokenBuckets[int] = TokenBuckets(1, 10, clock=clock)
    for key in range(100):
        buckets.take(key)
        clock.now += 2
    assert len(buckets) < 5
    for _ in range(10):
        buckets.take(99)
    buckets.take(100)
    assert buckets.take(99) > 0


def test_the_number_of_keys_is_bounded() -> None:
    buckets: TokenBuckets[int] = TokenBuckets(0.001, 10, keys=50, clock=Clock())
    for key in range(1000):
        buckets.take(key)
    assert len(buckets) <= 51
