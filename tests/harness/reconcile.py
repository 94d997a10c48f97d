"""What was promised against what arrived."""
import collections


class Balance:
    """Compares recipients by name: accepted ones must arrive, refused ones must not, those without an answer may.

    lost: accepted and never seen. unexpected: seen, though refused or never sent. doubled: {recipient: times} seen more than once.
    """

    def __init__(self, accepted, refused, unknown, seen):
        times = collections.Counter(seen)
        accepted = set(accepted)
        self.lost = sorted(accepted - set(times))
        self.unexpected = sorted(r for r in times if r not in accepted and r not in unknown)
        self.doubled = {r: n for r, n in times.items() if n > 1}
        self.arrived = len(times)
        self.refused_and_seen = sorted(set(refused) & set(times))

    def check(self, doubled_max=0):
        """AssertionError saying what is wrong; up to `doubled_max` surplus copies are allowed."""
        surplus = sum(self.doubled.values()) - len(self.doubled)
        if self.lost:
            raise AssertionError(f"{len(self.lost)} accepted recipients were lost: {self.lost[:10]}")
        if self.unexpected:
            raise AssertionError(f"{len(self.unexpected)} recipients arrived that nobody accepted: {self.unexpected[:10]}")
        if surplus > doubled_max:
            raise AssertionError(f"{surplus} surplus copies, at most {doubled_max} are allowed: {list(self.doubled.items())[:10]}")

    def __str__(self):
        return (f"{self.arrived} recipients arrived, {len(self.lost)} lost, {len(self.unexpected)} unexpected, "
                f"{sum(self.doubled.values()) - len(self.doubled)} surplus copies")
