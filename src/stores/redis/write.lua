-- Makes one write, and publishes it. A row is its version (8 bytes), the length of its topic (4), the topic, the value;
-- of a deleted one the version and topic of the delete are remembered for a while. `rows` has for each topic, under '\255', the
-- length and the topic, where it stands: the version of its last write (8), and that of the last delete that is forgotten (8).
-- `changes` has for each row, and each delete that is remembered, the length of its topic, the topic, the version and the key.
-- A set needs only the first three keys. With a `head` the write is published, on the row's topic.
local what, key, value, topic, wanted, flags, head, tail = unpack(ARGV, 4)
local unless_equal, returning = flags == 'e' or flags == 'er', flags == 'r' or flags == 'er'

local packed, topic_bytes, standing
if topic == '' then
    packed = call('HGET', rows, key)
else
    topic_bytes = pack('>I4', #topic) .. topic
    packed, standing = unpack(call('HMGET', rows, key, '\255' .. topic_bytes))
end
local exists = packed and last or call('HEXISTS', about, 'exists') == 1
local is_there = packed or call('HEXISTS', rows, '\255') == 1
local version, deleted, of_topic, value_at
if not exists ~= not is_there or (what == 'create' and not exists and count_of(changes, deletes, keys, topics, order) > 0) then
    return {within and 6 or 7}
elseif packed then
    local length
    version, length = unpack_bytes('>I8I4', packed)
    value_at = 13 + length
    of_topic = sub(packed, 13, value_at - 1)
elseif what == 'create' then
    deleted = call('HGET', deletes, key)
    version = deleted and unpack_bytes('>I8', deleted)
end

if what == 'create' then
    if packed then
        return {1}
    end
elseif not packed or (topic ~= '' and topic ~= of_topic) then
    return {2}
end
if wanted ~= '' and tonumber(wanted) ~= version then
    return {3}
end

local before = false
if what == 'create' then
    of_topic = topic
elseif unless_equal or returning then
    before = sub(packed, value_at)
    if unless_equal and what == 'set' and before == value then
        return {5, sub(packed, 1, 8), of_topic, returning and before}
    end
    before = returning and before
end
if topic == '' then
    topic_bytes = sub(packed, 9, value_at - 1)
    standing = call('HGET', rows, '\255' .. topic_bytes)
end

local next_version = (last or 0) + 1
local version_bytes = pack('>I8', next_version)
local row = version_bytes .. topic_bytes .. value
local stands = '\255' .. topic_bytes
local after = standing and sub(standing, 1, 8) or pack('>I8', call('HGET', about, 'deleted') or 0)
local stands_now = version_bytes .. (standing and sub(standing, 9) or '')
local place, place_before = topic_bytes .. version_bytes .. key, packed and topic_bytes .. sub(packed, 1, 8) .. key
-- Without a named topic the session has to know it.
local made = pack('>I8', number) .. version_bytes .. after .. (topic == '' and of_topic or '')
local message
if head == '' then
elseif string.byte(head) < 128 then
    message = head .. string.format('%d,"after":%d', next_version, (unpack_bytes('>I8', after))) .. tail
else
    -- A map of MessagePack begins above ASCII.
    message = head .. '\207' .. version_bytes .. '\165after\207' .. after .. tail
end
local numbers = version_bytes .. after
local reply = topic ~= '' and not before and numbers or {0, numbers, of_topic, before}

-- The same as below, without what it costs to be prepared for any number of steps.
if what == 'set' then
    local pcall = redis.pcall
    call('HSET', about, 'version', next_version, session, made)
    local done, steps = pcall('HSET', rows, key, row, stands, stands_now), 0
    if type(done) == 'number' then
        done, steps = pcall('ZADD', changes, 0, place), 1
        if type(done) == 'number' then
            done, steps = pcall('ZREM', changes, place_before), 2
            if done == 1 then
                done, steps = message and pcall('PUBLISH', of_topic, message) or 1, 3
                if type(done) == 'number' then
                    return reply
                end
            end
        end
    end
    local backs = {
        pcall('HSET', about, 'version', last, session, kept or NEVER),
        pcall('HSET', rows, key, packed, stands, standing or after),
        steps > 1 and pcall('ZREMRANGEBYLEX', changes, '[' .. place, '[' .. place) or 0,
        steps > 2 and pcall('ZADD', changes, 0, place_before) or 0,
    }
    for _, back in ipairs(backs) do
        if type(back) ~= 'number' then
            return {6}
        end
    end
    -- Where the row was not in its place, the place was evicted.
    return type(done) == 'number' and {within and 6 or 7} or done
end
