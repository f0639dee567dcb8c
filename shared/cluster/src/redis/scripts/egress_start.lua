-- Keeps a recording that somebody asked for, or, with a life, one that this server has lost and whose recorder has not: its lease
-- runs on.
local id, sid, status, version, epoch, node, life, life_ms, egress = unpack(ARGV, 4)
local is_new = life == ''
if stored(id) then return { 'ok', redis.call('HGET', EGRESSES, id) } end
if is_new and (not exists() or redis.call('HGET', X, 'sid') ~= sid) then return { 'no room' } end
if not make_place() then return { 'too many egresses' } end
local one = { epoch = tonumber(epoch), version = version, status = tonumber(status), sid = sid, leased = 0, node = '-',
  life = '0' }
if not is_new then one.leased, one.node, one.life = now_ms() + tonumber(life_ms), node, life end
redis.call('HSET', EGRESSES, id, egress)
keep(id, one)
if is_new then tell_of(one, egress) end
show()
return { 'ok', egress }
