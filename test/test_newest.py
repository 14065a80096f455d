from __future__ import annotations

import threading
import time

from depth_node.newest import Newest
from depth_node.newest import StampOrder


def test_the_newest_item_wins_and_the_replaced_one_is_told():
    slot = Newest()
    assert slot.put(1) is False
    assert slot.put(2) is True
    assert slot.take(0.0) == 2
    assert slot.put(3) is False


def test_taking_from_an_empty_slot_ends_after_the_timeout():
    slot = Newest()
    began = time.monotonic()
    assert slot.take(0.05) is None
    assert 0.04 <= time.monotonic() - began < 1.0


def test_an_item_is_taken_once():
    slot = Newest()
    slot.put('a')
    assert slot.take(0.0) == 'a'
    assert slot.take(0.0) is None


def test_a_waiting_taker_is_woken_by_an_item():
    slot = Newest()
    taken = []
    taker = threading.Thread(target=lambda: taken.append(slot.take(5.0)))
    taker.start()
    slot.put('image')
    taker.join(2.0)
    assert taken == ['image']


def test_close_releases_a_waiting_taker():
    slot = Newest()
    taker = threading.Thread(target=slot.take)
    taker.start()
    slot.close()
    taker.join(2.0)
    assert not taker.is_alive()


def test_what_comes_after_close_is_told_to_be_lost():
    slot = Newest()
    slot.put(1)
    assert slot.closed is False
    assert slot.close() is True
    assert slot.close() is False
    assert slot.closed is True
    assert slot.put(2) is True
    assert slot.take(0.0) is None


def test_items_that_are_false_are_items():
    slot = Newest()
    slot.put(0)
    assert slot.take(0.0) == 0


def test_every_item_is_taken_or_told_to_be_lost_under_load():
    slot = Newest()
    taken = []

    def consume():
        while (item := slot.take()) is not None:
            taken.append(item)

    consumer = threading.Thread(target=consume)
    consumer.start()
    lost = sum(slot.put(number) for number in range(1, 5001))
    lost += slot.close()
    consumer.join(5.0)
    assert len(taken) + lost == 5000
    assert taken == sorted(taken)


def test_stamps_leave_once_and_in_rising_order():
    order = StampOrder()
    assert order.objection('camera', 5) == ''
    order.note('camera', 5)
    assert order.objection('camera', 5) == 'duplicate'
    assert order.objection('camera', 4) == 'out_of_order'
    assert order.objection('camera', 6) == ''


def test_each_frame_id_has_its_own_order():
    order = StampOrder()
    order.note('left', 1000)
    assert order.objection('right', 5) == ''


def test_a_stamp_more_than_a_second_back_is_a_source_that_began_again():
    order = StampOrder()
    order.note('camera', 10_000_000_000)
    assert order.objection('camera', 9_000_000_000) == 'out_of_order'
    assert order.objection('camera', 8_999_999_999) == ''


def test_frames_without_a_clock_pass():
    order = StampOrder()
    order.note('camera', 0)
    assert order.objection('camera', 0) == ''
    order.note('camera', 100)
    assert order.objection('camera', 0) == ''
    order.note('camera', 0)
    assert order.objection('camera', 99) == 'out_of_order'


def test_a_jump_of_the_clock_forgets_the_order():
    order = StampOrder()
    order.note('camera', 100)
    order.reset()
    assert order.objection('camera', 99) == ''


def test_invented_frame_ids_do_not_fill_the_memory():
    order = StampOrder()
    for number in range(1000):
        order.note(f'camera_{number}', 1)
    assert len(order._last_ns) <= 16
    assert order.objection('camera_999', 1) == 'duplicate'
