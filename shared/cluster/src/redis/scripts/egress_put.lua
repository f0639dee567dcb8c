-- Changes a recording: a recorder under its epoch, whoever stops it or arranges it anew without one.
local id, epoch, version, status, egress = unpack(ARGV, 4)
local one = stored(id)
if not one then return { 'no egress' } end
if epoch ~= '' and one.epoch ~= tonumber(epoch) then return { 'superseded' } end
if redis.call('HGET', EGRESSES, id) == egress then return { 'ok' } end
if tonumber(version) ~= one.version + 1 then return { 'changed' } end
if not may_become(one.status, tonumber(status)) then return { 'over' } end
one.version, one.status = version, tonumber(status)
redis.call('HSET', EGRESSES, id, egress)
keep(id, one)
tell_of(one, egress)
show()
return { 'ok' }
