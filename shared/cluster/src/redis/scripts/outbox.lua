-- What whoever has leased an outbox does with it: takes an entry out that is done with and reads the oldest, or puts it off.
--
-- DUE: zset outbox -> when somebody has to look into it
-- STATE: hash; outbox -> token of its lease; "outbox:reached" -> "entry told tries"; `waiting`, `dropped` and `tokens` are counts
-- OUTBOX: stream of Happening (cluster.proto)
local DUE, STATE, OUTBOX = unpack(KEYS)
local token, life_ms, done, after_ms, reached = unpack(ARGV)
local REACHED = OUTBOX .. ':reached'
if redis.call('HGET', STATE, OUTBOX) ~= token then return { 'superseded' } end
if after_ms ~= '' then
  redis.call('HSET', STATE, REACHED, reached)
  redis.call('HDEL', STATE, OUTBOX)
  redis.call('ZADD', DUE, decimal(now_ms() + after_ms), OUTBOX)
  return { 'ok' }
end
if done ~= '' then
  redis.call('HINCRBY', STATE, 'waiting', 0 - redis.call('XDEL', OUTBOX, done))
end
local oldest = redis.call('XRANGE', OUTBOX, '-', '+', 'COUNT', 1)[1]
if not oldest then
  redis.call('DEL', OUTBOX)
  redis.call('ZREM', DUE, OUTBOX)
  redis.call('HDEL', STATE, OUTBOX, REACHED)
  return { 'ok', false }
end
redis.call('ZADD', DUE, decimal(now_ms() + life_ms), OUTBOX)
return { 'ok', oldest[1], oldest[2][2], redis.call('HGET', STATE, REACHED) or '' }
