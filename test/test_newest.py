from __future__ import annotations

import threading
import time

from depth_node.newest import NewestOfEach
from depth_node.newest import StampOrder


def test_the_newest_item_wins_and_the_replaced_one_is_told():
    slot = NewestOfEach()
    assert slot.put(1) is False
    assert slot.put(2) is True
    assert slot.take(0.0) == (0, 2)
    assert slot.put(3) is False


def test_taking_from_an_empty_slot_ends_after_the_timeout():
    slot = NewestOfEach()
    began = time.monotonic()
    assert slot.take(0.05) is None
    assert 0.04 <= time.monotonic() - began < 1.0


def test_an_item_is_taken_once():
    slot = NewestOfEach()
    slot.put('a')
    assert slot.take(0.0) == (0, 'a')
    assert slot.take(0.0) is None


def test_a_waiting_taker_is_woken_by_an_item():
    slot = NewestOfEach()
    taken = []
    taker = threading.Thread(target=lambda: taken.append(slot.take(5.0)))
    taker.start()
    slot.put('image')
    taker.join(2.0)
    assert taken == [(0, 'image')]


def test_close_releases_a_waiting_taker():
    slot = NewestOfEach()
    taker = threading.Thread(target=slot.take)
    taker.start()
    slot.close()
    taker.join(2.0)
    assert not taker.is_alive()


def test_what_comes_after_close_is_told_to_be_lost():
    slot = NewestOfEach()
    slot.put(1)
    assert slot.closed is False
    assert slot.close() == (0,)
    assert slot.close() == ()
    assert slot.closed is True
    assert slot.put(2) is True
    assert slot.take(0.0) is None


def test_items_that_are_false_are_items():
    slot = NewestOfEach()
    slot.put(0)
    assert slot.take(0.0) == (0, 0)


def test_every_item_is_taken_or_told_to_be_lost_under_load():
    slot = NewestOfEach()
    taken = []

    def consume():
        while (item := slot.take()) is not None:
            taken.append(item[1])

    consumer = threading.Thread(target=consume)
    consumer.start()
    lost = sum(slot.put(number) for number in range(1, 5001))
    lost += len(slot.close())
    consumer.join(5.0)
    assert len(taken) + lost == 5000
    assert taken == sorted(taken)


def test_slots_are_served_in_turn_and_an_empty_one_costs_no_turn():
    slots = NewestOfEach(3)
    for number in range(4):
        slots.put(number, 0)
        slots.put(10 + number, 2)
    assert [slots.take(0.0), slots.take(0.0)] == [(0, 3), (2, 13)]
    slots.put(4, 0)
    slots.put(20, 1)
    slots.put(14, 2)
    assert [slots.take(0.0)[0] for _ in range(3)] == [0, 1, 2]
    slots.put(5, 0)
    slots.put(6, 0)
    slots.put(21, 1)
    assert [slots.take(0.0), slots.take(0.0), slots.take(0.0)] == [(0, 6), (1, 21), None]


def test_who_sends_more_is_not_served_more():
    slots = NewestOfEach(2)
    served = [0, 0]
    for _ in range(1000):
        for number in range(10):
            slots.put(number, 0)
        slots.put(0, 1)
        for _ in range(2):
            served[slots.take(0.0)[0]] += 1
    assert served == [1000, 1000]


def test_a_slot_that_is_held_delays_itself_alone_and_the_newest_wins_meanwhile():
    slots = NewestOfEach(2)
    slots.hold(0, 60.0)
    slots.put('old', 0)
    slots.put('other', 1)
    assert slots.take(0.0) == (1, 'other')
    assert slots.take(0.0) is None
    assert slots.put('new', 0) is True
    slots.release(0)
    assert slots.take(0.0) == (0, 'new')


def test_a_hold_that_ends_wakes_the_taker():
    slots = NewestOfEach()
    slots.hold(0, 0.05)
    slots.put('image')
    began = time.monotonic()
    assert slots.take(5.0) == (0, 'image')
    assert 0.04 <= time.monotonic() - began < 1.0


def test_what_is_held_when_all_closes_is_told_to_be_left():
    slots = NewestOfEach(3)
    slots.hold(1, 60.0)
    slots.put('a', 1)
    slots.put('b', 2)
    assert slots.close() == (1, 2)


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


def test_a_frame_from_before_a_jump_back_does_not_stop_those_that_follow():
    order = StampOrder()
    order.note('camera', 900)
    before = order.era
    order.reset()
    # an image was in work and another waited when the clock was set back
    assert order.objection('camera', 1000, before) == ''
    order.note('camera', 1000, before)
    assert order.objection('camera', 1000, before) == 'duplicate'
    assert order.objection('camera', 950, order.era) == ''
    order.note('camera', 950, order.era)
    assert order.objection('camera', 950) == 'duplicate'


def test_invented_frame_ids_do_not_fill_the_memory():
    order = StampOrder()
    for number in range(1000):
        order.note(f'camera_{number}', 1)
    assert len(order._last_ns) <= 16
    assert order.objection('camera_999', 1) == 'duplicate'
